"""A whole fleet on one machine: real processes, TLS, secure aggregation, and devices that are killed."""
