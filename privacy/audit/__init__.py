"""Statistics of an empirical audit: bounds from an attacker's scores, and tests of the noise.

Arrays in, arrays out: nothing here runs a mechanism. An audit can show that a claim is false; it cannot show that it is
true, because a better attack may exist.
"""
