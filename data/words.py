"""What counts as a word of a title or a description, for whoever reads them: columns, portraits, encoders."""

from __future__ import annotations

import re

WORD = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?![^\W_])")
"""Two or more letters of any script and no digit among them: numbers are mostly years, which have columns of their
own, and letters mixed with digits are codes, such as the ids that stand in for missing titles."""
