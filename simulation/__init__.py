"""Simulations: measure a private recommender on your data. Datasets, virtual devices, baselines, reports."""
