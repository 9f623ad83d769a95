"""The relay against recordings of vLLM, and the client against sockets that misbehave."""
