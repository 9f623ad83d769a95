"""The HTTP edge of /v1, in DRF's own words."""
