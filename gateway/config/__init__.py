"""Models' rows -> publish -> Redis -> watch -> directory -> the call."""
