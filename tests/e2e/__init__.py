"""The whole of it: real gunicorn, real sockets, official clients."""
