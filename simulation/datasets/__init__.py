"""Datasets: reading, cleaning, public item content, leave-one-out splits, and the embedded demo."""
