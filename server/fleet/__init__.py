"""A fleet of real devices, from the operator's side: its folder, the rounds, and what survives a crash."""
