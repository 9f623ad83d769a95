"""Content policies: what may go to a model and what may come back. Pure, but for judge.py."""
