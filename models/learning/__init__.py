"""How devices learn: the closed form, SGD, and the one kernel that runs both for a batch of devices."""
