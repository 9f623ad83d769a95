"""Faults of backends, real ones on real sockets, under load: what clients see, what is lost, how soon it is over."""
