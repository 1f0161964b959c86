"""Statistics of an empirical audit: what an attacker's scores prove about a mechanism, and whether its noise is right.

Arrays in, arrays out: nothing here runs a mechanism. An audit can show that a claim is false; it cannot show that it is
true, because a better attack may exist.
"""
