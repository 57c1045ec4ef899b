"""Fit a device to measurements of one's own: probes to measure, and what they say."""
