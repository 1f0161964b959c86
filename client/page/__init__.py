"""The owner's local page: recommendations, feedback, the profile and what was sent, on 127.0.0.1 and nowhere else."""
