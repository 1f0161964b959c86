"""A wish in plain words, understood on the device: "something lighter from the 90s like Heat, but not horror".

No model guesses at sentences here. A scanner claims, in this order, titles, years, genres, moods and wishes about the
list; what it claims it can say back, and what nobody claimed is reported as not understood. Words that it does not know
are compared with the names of the genres by a text encoder, where the device has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from palate.client.recommending import request_words as words
from palate.client.recommending.facets import Facets, genre_facet
from palate.client.recommending.requests import LAST_YEAR, Request
from palate.data.titles import TitleIndex, plain
from palate.errors import ConfigError
from palate.models.arrays import Float32Array

TextEncoder = Callable[[Sequence[str]], Float32Array]
"""Texts to rows of length 1, float32 [n, d]; `data/text.py` has one that needs an optional package."""

MAX_LENGTH = 500
"""Characters of a request; a longer one is refused."""

_TITLE_WORDS = 12
_TITLE_LEAST = 0.9
_SUGGEST_LEAST = 0.7
_MOOD_WORDS = 4
_ENCODER_LEAST, _ENCODER_MARGIN = 0.45, 0.06
"""Cosine to the nearest genre, and its lead over the second. Of thirty words that are not listed, all-MiniLM-L6-v2 maps
ten at these bounds, each to the genre that a person would name; at a lead of 0.05 football becomes War."""
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[,;.!?()\"\u201c\u201d]|-")
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d]+)[\"\u201d]")
_DECADE_WORDS = "twenties thirties forties fifties sixties seventies eighties nineties"
_DECADE_NAMES = {name: 1900 + 10 * number for number, name in enumerate(_DECADE_WORDS.split(), start=2)}
_PARTS = {"early": (0, 3), "mid": (3, 6), "late": (6, 9)}


class RequestReader:
    """Reads requests about one catalogue.

    Parameters
    ----------
    facets, titles
        What can be asked for.
    encoder
        Compares unknown words with genres; None leaves them not understood.
    """

    def __init__(self, facets: Facets, titles: TitleIndex, encoder: TextEncoder | None = None) -> None:
        self._genres = words.genre_words(facets.genres)
        self._longest = max((name.count(" ") + 1 for name in self._genres), default=1)
        self._titles = titles
        self._encoder = encoder
        self._names = facets.genres
        self._named: Float32Array | None = None  # their vectors, once somebody needs them
        dated = facets.years[facets.years > 0]
        self._quartiles = np.percentile(dated, [25, 75]).astype(int).tolist() if len(dated) else None
        self._newest = int(dated.max()) if len(dated) else 0

    def read(self, text: str) -> Request:
        """Understand a request.

        Raises
        ------
        ConfigError
            If it is longer than `MAX_LENGTH`.
        """
        if len(text) > MAX_LENGTH:
            raise ConfigError(
                f"the request has {len(text)} characters, at most {MAX_LENGTH} are read", hint="say it in a sentence"
            )
        scan, asked = _Scan(text), Request()
        for read in (
            self._read_titles,
            self._read_years,
            self._read_genres,
            self._read_moods,
            self._read_wishes,
            self._read_rest,
        ):
            asked = asked.also(read(scan))
        return replace(
            asked,
            more=tuple(name for name in asked.more if name not in asked.less and name not in asked.without),
            less=tuple(name for name in asked.less if name not in asked.more and name not in asked.genres),
        )

    def _read_titles(self, scan: _Scan) -> Request:
        asked = Request()
        for start, end, quoted in scan.quoted:
            match = self._titles.closest(quoted, least=_TITLE_LEAST)
            if match is not None:
                asked = asked.also(_title(match.item, unlike=scan.negated(start)))
                scan.claim(start, end)
        whole = self._titles.exact(scan.text)
        if whole and not scan.claimed.any() and not self._is_listed(plain(scan.text)):
            scan.claim(0, len(scan.words))
            return _title(whole[0])
        at = 0
        while at < len(scan.words):
            cue = scan.cue(at)
            at += 1
            if not cue:
                continue
            start, unlike = at - 1 + cue, scan.words[at - 1] == "unlike" or scan.negated(at - 1)
            further = False
            while (read := self._title_at(scan, start)) is not None:
                item, end = read
                if further and not scan.pauses(end):  # "like Heat, hidden gems" does not mean the film Hidden
                    break
                further = True
                asked = asked.also(_title(item, unlike=unlike))
                scan.claim(at - 1, end)
                at = end
                start = end + 1 if end < len(scan.words) and scan.words[end] in ("and", "or", ",", "nor") else end
                if start == end:
                    break
            else:
                if not scan.claimed[at - 1]:
                    asked = asked.also(self._suggested(scan, start))
        return asked

    def _title_at(self, scan: _Scan, start: int) -> tuple[int, int] | None:
        """Longest title that starts at a word, as its item and the end of it."""
        for end in range(min(len(scan.words), start + _TITLE_WORDS), start, -1):
            if scan.claimed[start:end].any() or scan.words[end - 1] in _PUNCTUATION - {")"}:
                continue
            said = scan.said(start, end)
            if not plain(said) or (self._is_listed(plain(said)) and not self._is_named(said)):
                continue
            match = self._titles.closest(said, least=_TITLE_LEAST)
            if match is not None:
                return match.item, end
        return None

    def _suggested(self, scan: _Scan, start: int) -> Request:
        """Suggest titles that are similar to the words from here."""
        end = start
        while end < len(scan.words) and scan.words[end] not in _PUNCTUATION | {"but", "from", "not"}:
            end += 1
        if start < end and (scan.words[start] in words.STOP - words.ARTICLES or scan.claimed[start:end].any()):
            return Request()
        said = scan.said(start, end)
        unknown = [word for word in plain(said).split() if word not in words.STOP and not self._is_listed(word)]
        near = self._titles.search(said, 1) if unknown else ()
        return Request(suggestions=tuple((said, one.item) for one in near if one.similarity >= _SUGGEST_LEAST))

    def _is_listed(self, phrase: str) -> bool:
        """Whether a phrase is of the vocabulary, so that it is no title in passing."""
        single = phrase.removeprefix("a ").removeprefix("an ").removeprefix("the ")
        forms = words.stems(single)
        return any(form in self._genres or form in words.MOODS or form in words.COMPOUNDS for form in forms)

    def _is_named(self, said: str) -> bool:
        """Whether a phrase of the vocabulary is meant as a title all the same: "like Alien", but not "like horror"."""
        return said[:1].isupper() and plain(said) not in self._genres and bool(self._titles.exact(said))

    def _read_years(self, scan: _Scan) -> Request:
        spans: list[tuple[int | None, int | None]] = []
        without: list[tuple[int, int]] = []
        at = 0
        while at < len(scan.words):
            read = None if scan.claimed[at] else _years_at(scan, at)
            if read is None:
                at += 1
                continue
            first, last, start, end = read
            if scan.negated(start, facets=False):
                without.append((first or 0, last or LAST_YEAR))
            else:
                spans.append((first, last))
            scan.claim(start, end)
            at = end
        for at, word in enumerate(scan.words):
            old, recent = word in words.OLD, word in words.RECENT
            if scan.claimed[at] or self._quartiles is None or not (old or recent):
                continue
            first, last = self._quartiles
            if scan.negated(at):
                spans.append((first + 1, None) if old else (None, last - 1))
            else:
                spans.append((None, first) if old else (last, None))
            scan.claim(at, at + 1)
        firsts = [first for first, _ in spans if first is not None]
        lasts = [last for _, last in spans if last is not None]
        first, last = max(firsts, default=None), min(lasts, default=None)
        if first is not None and last is not None and first > last and len(spans) > 1:
            first, last = min(firsts), max(lasts)  # "the 70s or the 90s": from end to end
        return Request(first_year=first, last_year=last, without_years=tuple(without))

    def _read_genres(self, scan: _Scan) -> Request:
        def meant(forms: tuple[str, ...], at: int) -> Request | None:
            compound = next((words.COMPOUNDS[form] for form in forms if form in words.COMPOUNDS), None)
            known = self._known(compound or [form for form in forms if form in self._genres][:1])
            return _genres(scan, at, known) if known else None

        return scan.phrases(max(self._longest, 3), meant)

    def _read_moods(self, scan: _Scan) -> Request:
        def meant(forms: tuple[str, ...], at: int) -> Request | None:
            mood = next((words.MOODS[form] for form in forms if form in words.MOODS), None)
            more, less = (self._known(mood.more), self._known(mood.less)) if mood else ((), ())
            if not more and not less:
                return None
            return Request(more=less, less=more) if scan.negated(at) else Request(more=more, less=less)

        return scan.phrases(_MOOD_WORDS, meant)

    def _known(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(genre_facet(self._genres[name]) for name in names if name in self._genres)

    @staticmethod
    def _read_wishes(scan: _Scan) -> Request:
        asked = Request()
        for at, word in enumerate(scan.words):
            if scan.claimed[at]:
                continue
            start, how = scan.how_known(at) if word == "known" else (at, "")
            negated = scan.negated(start)
            following = scan.words[at + 1] if at + 1 < len(scan.words) else ""
            number = words.NUMBERS.get(word) or (int(word) if word.isdecimal() and len(word) <= 2 else 0)
            if word in words.NEW and not negated:
                wish = Request(new_only=True)
            elif word in words.POPULAR or how == "well":
                wish = Request(popularity=-1 if negated else 1)
            elif word in words.OBSCURE or how in ("less", "little"):
                wish = Request(popularity=1 if negated else -1)
            elif word in words.MIXED:
                wish = Request(diversity=0.0 if negated else 0.7)
            elif number and (
                following in words.THINGS or scan.is_facet(at + 1) or (at and scan.words[at - 1] == "top")
            ):
                wish = Request(count=number)
            else:
                continue
            asked = asked.also(wish)
            scan.claim(start, at + 1)
        return asked

    def _read_rest(self, scan: _Scan) -> Request:
        """Ask the encoder about words that nobody claimed; those that stay unclaimed were not understood."""
        unclaimed = [
            at
            for at, word in enumerate(scan.words)
            if not scan.claimed[at] and word not in _PUNCTUATION and plain(word) and plain(word) not in words.STOP
        ]
        if self._encoder is None or not unclaimed or not self._names:
            return Request(not_understood=tuple(dict.fromkeys(scan.words[at] for at in unclaimed)))
        if self._named is None:
            self._named = self._encoder(list(self._names))  # [genres, d]
        rest = self._encoder([scan.words[at] for at in unclaimed])  # [words, d]
        asked = Request()
        for at, cosines in zip(unclaimed, rest @ self._named.T, strict=True):
            order = np.argsort(-cosines, kind="stable")
            lead = cosines[order[0]] - (cosines[order[1]] if len(order) > 1 else 0.0)
            if cosines[order[0]] < _ENCODER_LEAST or lead < _ENCODER_MARGIN:
                asked = asked.also(Request(not_understood=(scan.words[at],)))
                continue
            near = (genre_facet(self._names[order[0]]),)
            asked = asked.also(Request(less=near) if scan.negated(at) else Request(more=near))
            scan.claim(at, at + 1, facet=True)
        return asked


_PUNCTUATION = frozenset(',;.!?()"\u201c\u201d-')


class _Scan:
    """A request as words, and which of them have been claimed."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = list(_TOKEN.finditer(text))
        self.words = [match.group().casefold().replace("\u2019", "'").replace("n't", "nt") for match in found]
        self._starts = [match.start() for match in found]
        self._ends = [match.end() for match in found]
        self.claimed = np.zeros(len(found), dtype=np.bool_)
        self._facet = np.zeros(len(found), dtype=np.bool_)
        self.quoted = [
            (self._at(match.start()), self._at(match.end()), match.group(1)) for match in _QUOTED.finditer(text)
        ]

    def _at(self, position: int) -> int:
        return sum(start < position for start in self._starts)

    def said(self, start: int, end: int) -> str:
        """Words as they were typed."""
        return self.text[self._starts[start] : self._ends[end - 1]] if start < end else ""

    def phrase(self, at: int, length: int) -> str:
        """Return words in plain letters, "" where they are claimed, too few, or parted by more than a hyphen."""
        parts = self.words[at : at + length]
        ends_in_words = len(parts) == length and not {parts[0], parts[-1]} & _PUNCTUATION
        if not ends_in_words or set(parts) & (_PUNCTUATION - {"-"}) or self.claimed[at : at + length].any():
            return ""
        return plain(" ".join(parts))

    def phrases(self, longest: int, meant: Callable[[tuple[str, ...], int], Request | None]) -> Request:
        """Claim phrases with a known meaning, of at most so many words, at each word the longest one."""
        asked = Request()
        for at in range(len(self.words)):
            for length in range(longest, 0, -1):
                found = meant(words.stems(self.phrase(at, length)), at)
                if found is not None:
                    asked = asked.also(found)
                    self.claim(at, at + length, facet=True)
                    break
        return asked

    def pauses(self, at: int) -> bool:
        """Whether the word here ends a phrase."""
        return at >= len(self.words) or self.words[at] in _PUNCTUATION | {"and", "or", "nor", "but", "from", "with"}

    def how_known(self, at: int) -> tuple[int, str]:
        """Word that qualifies "known", and its place: "well known", "less-known"."""
        before = at - 2 if at > 1 and self.words[at - 1] == "-" else at - 1
        return (before, self.words[before]) if before >= 0 else (at, "")

    def is_facet(self, at: int) -> bool:
        """Whether a word was claimed as a facet."""
        return at < len(self.words) and bool(self._facet[at])

    def claim(self, start: int, end: int, *, facet: bool = False) -> None:
        """Mark words as understood; those of a facet carry a negation on: "no horror or war"."""
        self.claimed[start:end] = True
        self._facet[start:end] = facet

    def cue(self, at: int) -> int:
        """How many words, from this one, announce a title; 0 if they do not."""
        if self.claimed[at]:
            return 0
        word, following = self.words[at], self.words[at + 1] if at + 1 < len(self.words) else ""
        if word in words.LIKE or word == "unlike":
            return 1
        return 2 if following and words.LIKE_OF.get(word) == following else 0

    def negator(self, at: int, *, facets: bool = True) -> str:
        """Word that negates the word here, "" if there is none; only small words may be between them."""
        if self._begins_anew(at):
            return ""
        for before in range(at - 1, -1, -1):
            word = self.words[before]
            if word in words.NEGATIONS or (word == "but" and before and self.words[before - 1] in words.ALL):
                return word
            if self._begins_anew(before):
                return ""
            if word not in words.GLUE | words.VERBS and not (facets and self._facet[before]):
                return ""
        return ""

    def _begins_anew(self, at: int) -> bool:
        """Whether a word asks for what follows, in spite of an earlier negation: "no horror and more drama"."""
        if self.words[at] not in words.VERBS | words.LIKE and self.words[at] != "more":
            return False
        while at and self.words[at - 1] in words.DEGREES:
            at -= 1
        return at > 0 and (self.words[at - 1] in ("and", "but") or bool(self._facet[at - 1]))

    def negated(self, at: int, *, facets: bool = True) -> bool:
        """Whether a word is negated."""
        return bool(self.negator(at, facets=facets))


def _title(item: int, *, unlike: bool = False) -> Request:
    return Request(unlike=(item,)) if unlike else Request(titles=(item,))


def _genres(scan: _Scan, at: int, known: tuple[str, ...]) -> Request:
    """Ask for genres that are named at a word: more or less of them, one of them, or none."""
    negator = scan.negator(at)
    if negator in ("less", "fewer"):
        return Request(less=known)
    if negator:
        return Request(without=known)
    return Request(more=known) if at and scan.words[at - 1] == "more" else Request(genres=known)


def _years_at(scan: _Scan, at: int) -> tuple[int | None, int | None, int, int] | None:
    """Span of years at a word: first, last, and the words that were read."""
    single = _span(scan, at)
    if single is None:
        return None
    (first, last), end = single
    start = at
    before = scan.words[at - 1] if at else ""
    if before == "the" and at > 1:
        before, start = scan.words[at - 2], at - 1
    if before in _PARTS and last - first == 9:
        low, high = _PARTS[before]
        first, last, start = first + low, first + high, start - 1
        before = scan.words[start - 1] if start else ""
        if before == "the" and start > 1:
            before, start = scan.words[start - 2], start - 1
    following = scan.words[end] if end < len(scan.words) else ""
    if following in ("to", "until", "and", "-", "till") and (following != "and" or before == "between"):
        second = _span(scan, end + 1 + (end + 1 < len(scan.words) and scan.words[end + 1] == "the"))
        if second is not None:
            begins, ends = second[0]
            first, last = (begins, last) if ends < first else (first, ends)  # "from 1995 to 1990": turned round
            return first, last, start, second[1]
    if before in ("since", "after"):
        return (last + 1 if before == "after" else first), None, start - 1, end
    if before in ("before", "until", "till"):
        return None, (first - 1 if before == "before" else last), start - 1, end
    return first, last, start, end


def _span(scan: _Scan, at: int) -> tuple[tuple[int, int], int] | None:
    """Year or decade at a word, and where it ends."""
    if at >= len(scan.words) or scan.claimed[at]:
        return None
    word = scan.words[at].replace("'", "")
    if word in _DECADE_NAMES:
        return (_DECADE_NAMES[word], _DECADE_NAMES[word] + 9), at + 1
    found = re.fullmatch(r"((?:1[89]|20)\d\d)(s?)|(\d0)s", word)
    if found is None:
        return None
    if found.group(3):
        short = int(found.group(3))
        decade = (2000 if short < 30 else 1900) + short
        return (decade, decade + 9), at + 1
    year = int(found.group(1))
    if not found.group(2):
        return (year, year), at + 1
    return (year, year + (99 if year % 100 == 0 and year < 2000 else 9)), at + 1
