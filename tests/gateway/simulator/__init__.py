"""Tests of the vLLM stand-in, over real sockets against the real process."""
