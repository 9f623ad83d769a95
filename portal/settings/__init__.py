"""Settings profiles: base, web, gateway, test; env.py alone reads the environment."""
