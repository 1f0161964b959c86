"""The deployment's transport on the device: one pinned server, one node key, one installed program."""
