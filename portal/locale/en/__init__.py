"""English: formats and messages."""
