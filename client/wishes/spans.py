"""Numbers in a wish: spans of years and of minutes, alone or by comparison with a title ("newer than Heat")."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.client.recommending.requests import LAST_MINUTE, LAST_YEAR
from palate.client.wishes.tokens import Token

_YEAR = re.compile(r"((?:1[89]|20)\d\d)(s|'s|\u2019s|er|ern)?")
_SHORT_DECADE = re.compile(r"(\d0)(s|'s|\u2019s|er|ern)?")
_HOURS_MINUTES = re.compile(r"(\d)h(\d\d)?")
_BESIDE = 6
"""Tokens between a comparison and the title that it is about: "the year in which Heat"."""
_SKIPPED = "glue prep and thing - want"
SHORT_MINUTES, LONG_MINUTES = 100, 150
_ABOUT = 0.1
_PARTS = {"early": (0, 3), "mid": (3, 6), "late": (6, 9)}


@dataclass(frozen=True)
class Span:
    """A span of numbers at some tokens, both ends in it.

    Attributes
    ----------
    what
        "year" or "minute".
    first, last
        From 0 and to `LAST_YEAR` or `LAST_MINUTE`, where it is open.
    start, end
        Its tokens.
    """

    what: str
    first: int
    last: int
    start: int
    end: int


class SpanReader:
    """Reads the spans of one wish.

    Parameters
    ----------
    tokens
        The wish.
    year_of, minutes_of
        Of an item, 0 where unknown.
    """

    def __init__(
        self, tokens: Sequence[Token], year_of: Callable[[int], int], minutes_of: Callable[[int], int]
    ) -> None:
        self._tokens = tokens
        self._of = {"year": year_of, "minute": minutes_of}

    def read(self, at: int) -> Span | None:
        """Read the span that begins at a token, if any."""
        return self._beside_title(at) or self._minutes(at) or self._years(at)

    def _is(self, at: int, kinds: str) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at].any(kinds)

    def _said(self, at: int) -> str:
        return self._tokens[at].said.casefold() if 0 <= at < len(self._tokens) else ""

    def _skip(self, at: int, kinds: str = _SKIPPED) -> int:
        while self._is(at, kinds) and not self._is(at, "decade number title"):
            at += 1
        return at

    def _limits(self, at: int, first: int, last: int, open_end: int) -> tuple[int, int]:
        """Return the limits that the comparison at a token sets by a span: before it, from it on, and so on."""
        for kinds, limits in (
            ("at_least since", (first, open_end)),
            ("at_most until backward", (0, last)),
            ("newer after over long", (last + 1, open_end)),
            ("older before under short prior", (0, first - 1)),
            ("onward", (first, open_end)),
        ):
            if self._is(at, kinds):
                return limits
        return first, last

    def _beside_title(self, at: int) -> Span | None:
        """Read a year or a length that is compared with that of a title."""
        found = self._after_title(at) if self._is(at, "title") else self._before_title(at)
        if found is None:
            return None
        title, relation, end = found
        end += self._is(end, "released")
        what = "minute" if self._is(relation, "under over at_most at_least short long") else "year"
        value = self._of[what](int(self._tokens[title].kinds["title"]))
        first, last = self._limits(relation, value, value, LAST_YEAR if what == "year" else LAST_MINUTE)
        return Span(what, first, last, at, end) if value else None

    def _after_title(self, at: int) -> tuple[int, int, int] | None:
        """Return title, comparison and end of "《Heat》之后"."""
        relation = at + 1 + self._is(at + 1, "released")
        return (at, relation, relation + 1) if self._is(relation, "prior onward same_year") else None

    def _before_title(self, at: int) -> tuple[int, int, int] | None:
        """Return title, comparison and end of "newer than Heat" or "比《Heat》新"."""
        than = self._is(at, "than like")
        before = "newer older same_year before after since until under over at_most at_least short long"
        if not self._is(at, before) and not than:
            return None
        title = next((n for n in range(at + 1, min(at + _BESIDE, len(self._tokens))) if self._is(n, "title")), None)
        if title is None or any(not self._is(n, _SKIPPED + " , released") for n in range(at + 1, title)):
            return None
        if not than:
            return title, at, title + 1
        relation = self._skip(title + 1, "glue")
        if not self._is(relation, "newer older same_year long short over under") or self._is(relation, "genre"):
            return None
        return title, relation, relation + 1

    def _minutes(self, at: int) -> Span | None:
        start, at = at, self._skip(at + 1) if self._is(at, "at_most at_least under over than") else at
        length = self._length(at)
        if length is None:
            return None
        minutes, end = length
        after = self._skip(end, "glue -")
        than = start != at and self._is(start, "than")
        if self._is(after, "at_most at_least") or (than and self._is(after, "short long")):
            bound, end = after, after + 1
        else:
            bound = start if start != at else -1
        first, last = self._limits(bound, minutes, minutes, LAST_MINUTE)
        if (first, last) == (minutes, minutes):  # "90 minutes" are about 90 minutes
            return Span("minute", round((1 - _ABOUT) * minutes), round((1 + _ABOUT) * minutes), start, end)
        return Span("minute", max(first, 1), last, start, end)

    def _length(self, at: int) -> tuple[int, int] | None:
        """Minutes at a token, and the token after them."""
        if self._is(at, "half_hour"):
            return 30, at + 1
        clock = _HOURS_MINUTES.fullmatch(self._said(at))
        if clock is not None:
            return 60 * int(clock[1]) + int(clock[2] or 0), at + 1
        glued = re.fullmatch(r"(\d+)(?:min|mins|mn)", self._said(at))
        if glued is not None:
            return int(glued[1]), at + 1
        if self._is(at, "number"):
            value = float(self._tokens[at].kinds["number"])
        elif re.fullmatch(r"\d{1,3}(?:[.,]\d+)?", self._said(at)):
            value = float(self._said(at).replace(",", "."))
        else:
            return None
        unit = at + 1 + self._is(at + 1, "-")
        if not self._is(unit, "hour minute"):
            return None
        return round(value * (60 if self._is(unit, "hour") else 1)), unit + 1

    def _years(self, at: int) -> Span | None:
        start = at
        if self._is(at, "between before after since until newer older prep"):
            at = self._skip(at + 1)
        single = self._year(at)
        if single is None:
            return None
        first, last, end = single
        bound = start if start != at else -1
        if self._is(end, "to -") or (self._is(end, "and") and self._is(bound, "between")):
            second = self._year(self._skip(end + 1, "glue"))
            if second is not None:
                begins, ends, end = second
                # "from 1995 to 1990" is turned round, "from 1995 to the 90s" ends with the decade
                low, high = (begins, last) if ends < first else (first, ends)
                return Span("year", low, high, start, end)
        if self._is(end, "prior onward backward") and not self._is(bound, "before after since until"):
            low, high = self._limits(end, first, last, LAST_YEAR)
            return Span("year", low, high, start, end + 1)
        low, high = self._limits(bound, first, last, LAST_YEAR)
        return Span("year", low, high, at if (low, high) == (first, last) else start, end)

    def _year(self, at: int) -> tuple[int, int, int] | None:
        """First and last year of a year or a decade at a token, and the token after it."""
        part = next((kind for kind in _PARTS if self._is(at, kind)), "")
        if part:
            decade = self._year(self._skip(at + 1 + self._is(at + 1, "-"), "glue"))
            if decade is None or decade[1] - decade[0] != 9:
                return None
            return decade[0] + _PARTS[part][0], decade[0] + _PARTS[part][1], decade[2]
        marked = self._is(at, "decade_mark")
        at += marked
        if self._is(at, "decade") and (marked or not self._is(at, "number")):
            year = int(self._tokens[at].kinds["decade"])
            return year, year + 9, self._skip(at + 1, "glue")
        return self._figures(at, marked=marked)

    def _figures(self, at: int, *, marked: bool) -> tuple[int, int, int] | None:
        """Read "1995", "1990s" or "90s"; `marked` where a word has said that it is a decade."""
        after = at + 1 + self._is(at + 1, "decade_mark")
        marked |= after > at + 1
        found = _YEAR.fullmatch(self._said(at))
        if found is not None:
            year = int(found[1])
            if not found[2] and not marked:
                return year, year, self._skip_year(after)
            return year, year + (99 if year % 100 == 0 and year < 2000 else 9), after
        short = _SHORT_DECADE.fullmatch(self._said(at))
        if short is None or not (short[2] or marked):
            return None
        year = int(short[1]) + (2000 if int(short[1]) < 30 else 1900)
        return year, year + 9, after

    def _skip_year(self, at: int) -> int:
        """Pass the word for a year, as in "1995年"."""
        return at + 1 if self._said(at) in ("\u5e74", "jahre", "jahren") else at
