"""Schema history of the accounts tables."""
