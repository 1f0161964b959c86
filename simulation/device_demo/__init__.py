"""A demonstration device: an invented person's, with a table that was learned privately on this machine."""
