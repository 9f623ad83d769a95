"""Tests of the gunicorn worker."""
