"""A vLLM stand-in with the real wire format."""
