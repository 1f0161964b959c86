"""A wish in plain words, understood on the device: "something lighter from the 90s like Heat, but not horror".

A wish is parted into phrases that a lexicon knows (`tokens.py`). Titles, spans, names, genres and moods become *parts*;
then what turns something down is bound to its parts (`negation.py`). A part is applied only if nothing beside it is
unknown, for an unknown word may turn it down. What nobody knows is compared with the names of genres by a sentence
encoder, where the device has one, and otherwise asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from palate.client.recommending.facets import Facets, genre_facet
from palate.client.recommending.requests import LAST_MINUTE, LAST_YEAR, Request
from palate.client.wishes.lexicon import LANGUAGES, Kinds, genre_names, lexicon_of
from palate.client.wishes.moods import mood_of
from palate.client.wishes.negation import Part, bind
from palate.client.wishes.spans import LONG_MINUTES, SHORT_MINUTES, Span, SpanReader
from palate.client.wishes.title_spans import find_titles
from palate.client.wishes.tokens import Token, language_of, tokens_of, words_of
from palate.data.title_index import TitleIndex
from palate.data.titles import plain
from palate.errors import ConfigError
from palate.models.arrays import Float32Array

TextEncoder = Callable[[Sequence[str]], Float32Array]
"""Texts to rows of length 1, float32 [n, d]; `data/text.py` has one that needs an optional package."""

MAX_LENGTH = 500
"""Characters of a request; a longer one is refused."""

_ENCODER_LEAST, _ENCODER_MARGIN = 0.5, 0.08
"""Cosine to the nearest genre, and its lead over the second."""
_NAME_WORDS = 4
_QUARTILES = (25, 75)
_NOTHING = Token("")


class RequestReader:
    """Reads wishes about one catalogue.

    Parameters
    ----------
    facets, titles
        What can be asked for.
    encoder
        Compares unknown words with genres; None leaves them not understood.
    """

    def __init__(self, facets: Facets, titles: TitleIndex, encoder: TextEncoder | None = None) -> None:
        self._lexicons = {language: lexicon_of(language).with_genres(facets.genres) for language in LANGUAGES}
        self._genres = genre_names(facets.genres)
        self._facets = facets
        self._titles = titles
        self._encoder = encoder
        self._named: Float32Array | None = None  # their vectors, once somebody needs them
        dated = facets.years[facets.years > 0]
        self.quartiles = np.percentile(dated, _QUARTILES).astype(int).tolist() if len(dated) else None

    def read(self, text: str) -> Request:
        """Understand a wish.

        Raises
        ------
        ConfigError
            If it is longer than `MAX_LENGTH`.
        """
        if len(text) > MAX_LENGTH:
            raise ConfigError(
                f"the request has {len(text)} characters, at most {MAX_LENGTH} are read", hint="say it in a sentence"
            )
        if not text.strip():
            return Request()
        language = language_of(text, self._lexicons)
        lexicons = [self._lexicons[each] for each in (language, *(each for each in LANGUAGES if each != language))]
        words = words_of(text, lexicons[0])
        titles, suggestions = find_titles(text, words, self._titles, lexicons)
        reading = _Reading(tokens_of(text, words, lexicons, titles), self)
        asked = reading.request()
        return replace(asked, suggestions=suggestions)

    def known_genres(self, names: str) -> tuple[str, ...]:
        """Facets of genres by their plain names, joined by "+"; nothing unless the catalogue has each of them."""
        parts = names.split("+")
        return tuple(genre_facet(self._genres[name]) for name in parts) if all(n in self._genres for n in parts) else ()

    def nearest(self, words: Sequence[str]) -> list[str]:
        """Facet of the genre that each word means to the encoder, "" where it means none or there is no encoder."""
        names = self._facets.genres
        if self._encoder is None or not words or not names:
            return [""] * len(words)
        if self._named is None:
            self._named = self._encoder(list(names))  # [genres, d]
        found = []
        for cosines in self._encoder(list(words)) @ self._named.T:  # [genres]
            order = np.argsort(-cosines, kind="stable")
            lead = cosines[order[0]] - (cosines[order[1]] if len(order) > 1 else 0.0)
            sure = cosines[order[0]] >= _ENCODER_LEAST and lead >= _ENCODER_MARGIN
            found.append(genre_facet(names[order[0]]) if sure else "")
        return found


class _Reading:
    """One wish, while it is read."""

    def __init__(self, tokens: list[Token], reader: RequestReader) -> None:
        self._tokens, self._reader = tokens, reader
        self._facets = reader._facets
        self._parts: dict[int, Part] = {}
        self._covered = [False] * len(tokens)

    def request(self) -> Request:
        """Understand all of it."""
        self._read_spans()
        self._read_titles()
        self._read_kinds()
        self._read_names()
        unknown = self._read_unknown()
        negations = bind(self._tokens, self._parts, unknown)
        unsure: list[tuple[str, str]] = []
        asked, positive = Request(), list[tuple[int, tuple[str, ...]]]()
        for at, part in sorted(self._parts.items()):
            beside = part.unclear if part.unclear >= 0 else self._unknown_beside(at, part, unknown)
            if beside >= 0 and (part.facets or part.unclear >= 0):
                unsure += [
                    (self._said(beside, beside + 1), name) for name in part.facets or (self._said(at, part.end),)
                ]
                continue
            asked = asked.also(part.chosen)
            if part.facets and part.bound == "" and not part.chosen.more and not part.chosen.moods:
                positive.append((at, part.facets))
        asked = asked.also(self._genres_together(positive))
        left = [self._said(at, at + 1) for at in sorted(unknown)]
        left += [self._said(at, end) for at, end in negations]
        return replace(
            _without_contradictions(asked),
            not_understood=tuple(dict.fromkeys((*asked.not_understood, *left))),
            unsure=tuple(dict.fromkeys(unsure)),
        )

    def _said(self, start: int, end: int) -> str:
        return " ".join(token.said for token in self._tokens[start:end]).replace(" - ", "-").replace(" .", ".")

    def _add(self, start: int, end: int, part: Part) -> None:
        self._parts[start] = replace(part, end=end)
        self._covered[start:end] = [True] * (end - start)

    def _read_spans(self) -> None:
        minutes_of = self._facets.minutes_of
        spans = SpanReader(self._tokens, lambda row: int(self._facets.years[row]), minutes_of)
        found: list[Span] = []
        at = 0
        while at < len(self._tokens):
            span = spans.read(at)
            at = at + 1 if span is None else span.end
            if span is not None:
                found.append(span)
        several = len([span for span in found if span.what == "year"]) > 1
        for span in found:
            self._add(span.start, span.end, self._span_part(span))
        years = [
            part for part in self._parts.values() if part.want.first_year is not None or part.want.last_year is not None
        ]
        if several and len(years) > 1:
            self._join_years(years)

    def _join_years(self, parts: list[Part]) -> None:
        """Read "the 70s or the 90s" from end to end."""
        firsts, lasts = [part.want.first_year for part in parts], [part.want.last_year for part in parts]
        if None in firsts or None in lasts or max(filter(None, firsts)) <= min(filter(None, lasts)):
            return
        joint = Request(first_year=min(filter(None, firsts)), last_year=max(filter(None, lasts)))
        for at, part in self._parts.items():
            if part in parts:
                self._parts[at] = replace(part, want=joint)

    def _span_part(self, span: Span) -> Part:
        if span.what == "year":
            first, last = span.first or None, span.last if span.last != LAST_YEAR else None
            return Part(
                want=Request(first_year=first, last_year=last), refuse=Request(without_years=((span.first, span.last),))
            )
        if not self._facets.has_minutes:
            return Part(want=Request(not_understood=(self._said(span.start, span.end),)))
        first, last = span.first or None, span.last if span.last != LAST_MINUTE else None
        return Part(
            want=Request(shortest=first, longest=last), refuse=Request(without_minutes=((span.first, span.last),))
        )

    def _read_titles(self) -> None:
        cue, similar = "", False
        for at, token in enumerate(self._tokens):
            if self._covered[at] or not token.any("title"):
                similar = similar and token.any("title and or , glue")
                if token.any("like unlike"):
                    cue, similar = "unlike" if token.any("unlike") else "like", True
                continue
            row = (int(token.kinds["title"]),)
            if similar and cue == "unlike":
                self._add(at, at + 1, Part(want=Request(unlike=row), refuse=Request(titles=row)))
            else:
                refuse = Request(unlike=row) if similar else Request(without_titles=row)
                self._add(at, at + 1, Part(want=Request(titles=row), refuse=refuse))

    def _read_kinds(self) -> None:
        for at, token in enumerate(self._tokens):
            if self._covered[at]:
                continue
            part = self._kind_part(at, token)
            if part is not None:
                self._add(at, at + 1, part)

    def _kind_part(self, at: int, token: Token) -> Part | None:
        kinds = token.kinds
        before = self._tokens[at - 1] if at else _NOTHING
        after = self._tokens[at + 1] if at + 1 < len(self._tokens) else _NOTHING
        if "genre" in kinds and (facets := self._reader.known_genres(kinds["genre"])):
            more = before.any("more") or (before.any("glue") and at > 1 and self._tokens[at - 2].any("more"))
            want = Request(more=facets) if more else Request()
            return Part(want=want, refuse=Request(without=facets), less=Request(less=facets), facets=facets)
        if "mood" in kinds:
            return self._mood_part(kinds["mood"])
        if "number" in kinds or token.said.isdecimal():
            number = kinds.get("number") or token.said
            if (after.any("thing genre") or before.any("top")) and number.isdecimal() and 0 < int(number) < 100:
                return Part(want=Request(count=int(number)))
            return None
        if "short" in kinds or "long" in kinds:
            short = "short" in kinds
            span = Span("minute", 1 if short else LONG_MINUTES, SHORT_MINUTES if short else LAST_MINUTE, at, at + 1)
            return self._span_part(span) if self._facets.has_minutes else None
        return self._setting_part(kinds)

    def _mood_part(self, name: str) -> Part | None:
        genres = self._reader._genres
        mood, opposite = mood_of(name, genres), mood_of(name, genres, negated=True)
        if mood is None:
            return None
        refuse = None if opposite is None else Request(moods=(opposite,))
        return Part(
            want=Request(moods=(mood,)), refuse=refuse, less=Request(less=mood.of[:2]), facets=(f"mood: {name}",)
        )

    def _setting_part(self, kinds: Kinds) -> Part | None:
        """Read what an adjective says of the list, or of how old its items are, by the quartiles of the catalogue."""
        found = {
            "obscure": (Request(popularity=-1), Request(popularity=1)),
            "popular": (Request(popularity=1), Request(popularity=-1)),
            "mixed": (Request(diversity=0.7), Request(diversity=0.0)),
            "new": (Request(new_only=True), None),
        }
        if self._reader.quartiles is not None:
            low, high = self._reader.quartiles
            found["old"] = (Request(last_year=low), Request(first_year=low + 1))
            found["recent"] = (Request(first_year=high), Request(last_year=high - 1))
        name = next((name for name in found if name in kinds), None)
        return None if name is None else Part(want=found[name][0], refuse=found[name][1])

    def _read_names(self) -> None:
        """Find names, and other words after "about" or "with", in the texts of the items."""
        at = 0
        while at < len(self._tokens):
            end = at
            while (
                end < min(len(self._tokens), at + _NAME_WORDS) and not self._covered[end] and self._may_be_name(end, at)
            ):
                end += 1
            while end > at and not self._facets.mentioning(self._name(at, end)).any():
                end -= 1
            if end > at and any(not self._tokens[n].kinds for n in range(at, end)):
                name = (self._name(at, end),)
                self._add(at, end, Part(want=Request(mentions=name), refuse=Request(without_mentions=name)))
            at = max(end, at + 1)

    def _name(self, start: int, end: int) -> str:
        return self._said(start, end)

    def _may_be_name(self, at: int, first: int) -> bool:
        said, kinds = self._said(at, at + 1), self._tokens[at].kinds
        if said[:1].isupper() and said[:1].isalpha():
            return not kinds or at > first
        return at > first and (said in "-." or not kinds)

    def _read_unknown(self) -> set[int]:
        """Tokens that nobody knows; the encoder is asked about them first."""
        unknown = [at for at, token in enumerate(self._tokens) if not self._covered[at] and self._is_unknown(at, token)]
        words = [self._said(at, at + 1) for at in unknown]
        for at, facet in zip(list(unknown), self._reader.nearest(words), strict=True):
            if facet:
                self._add(at, at + 1, Part(want=Request(more=(facet,)), refuse=Request(less=(facet,)), facets=(facet,)))
                unknown.remove(at)
        return set(unknown)

    def _is_unknown(self, at: int, token: Token) -> bool:
        if not token.kinds:
            return bool(plain(self._said(at, at + 1))) or not self._said(at, at + 1).isascii()
        matters = token.any("neutral genre mood short long old recent newer older same_year under over")
        return matters and not token.any("glue thing prep or and break only less more want like since to")

    def _unknown_beside(self, at: int, part: Part, unknown: set[int]) -> int:
        """Return the unknown word beside a part, small words aside, -1 if there is none.

        Marks and words that join part them; so do prepositions after it, "a comedy about sailing", but not before it:
        "steer clear of comedies".
        """
        for step, beside in ((-1, at - 1), (1, part.end)):
            place = beside
            while 0 <= place < len(self._tokens):
                token = self._tokens[place]
                if place in unknown:
                    return place
                small = token.any("glue thing - prep") and not token.any("or and , . not lack except less break")
                small &= step < 0 or not token.any("prep")
                if self._covered[place] or not small:
                    break
                place += step
        return -1

    def _genres_together(self, positive: list[tuple[int, tuple[str, ...]]]) -> Request:
        """Genres that are named as one, "a romantic comedy", must all be there; of those that are parted, any."""
        groups: list[list[str]] = []
        last = -1
        for at, facets in positive:
            parted = last < 0 or any(self._tokens[n].any("or and , .") for n in range(last, at))
            if parted:
                groups.append([])
            groups[-1] += [name for name in facets if name not in groups[-1]]
            last = at
        if len(groups) == 1 and len(groups[0]) > 1:
            return Request(every=tuple(groups[0]))
        return Request(genres=tuple(dict.fromkeys(name for group in groups for name in group)))


def _without_contradictions(asked: Request) -> Request:
    """Refuse what is both asked for and refused."""
    refused = {*asked.without, *(name for mood in asked.moods for name in mood.without if not mood.of)}
    return replace(
        asked,
        more=tuple(name for name in asked.more if name not in asked.less and name not in refused),
        less=tuple(name for name in asked.less if name not in asked.more and name not in asked.genres),
        genres=tuple(name for name in asked.genres if name not in refused),
        every=tuple(name for name in asked.every if name not in refused),
    )
