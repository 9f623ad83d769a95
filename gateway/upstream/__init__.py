"""The calls to vLLM and the relay of its answers."""
