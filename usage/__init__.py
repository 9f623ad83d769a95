"""The third floor: how much. Knows no HTTP."""
