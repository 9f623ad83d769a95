"""Schema history of the gateway's tables."""
