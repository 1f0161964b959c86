"""Score models, one file each; `palate.models.scores.registry` lists them."""
