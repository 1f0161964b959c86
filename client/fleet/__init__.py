"""A person's device in a fleet: what it trusts, what its owner allows, and its part in secure rounds."""
