"""Wishes in plain words, read on the device: what is asked for, what is refused, and what has to be asked about."""
