"""Palate: private taste, shared knowledge."""
