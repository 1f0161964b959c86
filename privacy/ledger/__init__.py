"""The record of every use of a privacy mechanism: append-only, hash-chained, signed, anchored in a Merkle log."""
