"""The second floor: the machines' door, /v1."""
