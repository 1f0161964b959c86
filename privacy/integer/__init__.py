"""The integer mechanism: clip, quantise, add a Skellam share, reduce modulo 2^b (Agarwal, Kairouz & Liu 2021).

Raw float noise is never released: its low-order bits reveal what it was added to. Here everything that leaves is an
integer, its sensitivity is checked in integer arithmetic, and its noise comes from a cryptographic generator.
"""
