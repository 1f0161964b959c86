"""Secure aggregation: the server learns the sum of a round's vectors, and no single one (Bonawitz et al. 2017).

A pure protocol, bytes in and bytes out: no network, no clock, no global state. The format and every check are in
docs/formats/secure-aggregation.md; `device.DeviceRound` and `server.ServerRound` are its two sides.
"""
