"""The second aggregator of a fleet: a service with TLS of its own, or file by file on a machine without a network."""
