"""Tests of the configuration street, on the real stores."""
