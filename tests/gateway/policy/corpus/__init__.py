"""What detectors are measured with: clean lines that tempt them, and things to find, written in many ways. All made up."""
