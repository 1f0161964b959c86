"""Thousands of virtual devices in a few processes, through the real protocol to a real leader and a real helper."""
