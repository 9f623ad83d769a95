"""Schema history of the usage tables."""
