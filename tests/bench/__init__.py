"""Measurements, not tests: each prints what one step costs."""
