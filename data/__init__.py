"""The public side of data: the one catalogue of items, and the one reader of interactions and items."""
