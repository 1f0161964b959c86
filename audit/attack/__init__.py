"""The empirical audit: the mechanism's own code plays against an attacker who knows everybody else's data."""
