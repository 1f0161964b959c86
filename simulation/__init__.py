"""What a private recommender would be worth on your data: datasets, virtual devices, baselines, reports."""
