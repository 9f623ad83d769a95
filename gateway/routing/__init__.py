"""From alias to backend."""
