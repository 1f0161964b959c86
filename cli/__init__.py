"""The `palate` command: mounts the sub-apps, nothing else."""
