"""The top floor: the humans' door, and the wiring of processes."""
