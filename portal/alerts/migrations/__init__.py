"""Migrations of the alerts."""
