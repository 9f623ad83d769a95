"""Japanese: formats and messages."""
