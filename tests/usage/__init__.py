"""Tests of the usage floor."""
