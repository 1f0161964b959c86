"""A wish as phrases that a lexicon knows, in the language that knows most of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from palate.client.wishes.lexicon import HAN, LANGUAGES, Kinds, Lexicon
from palate.data.titles import plain

_WORD = re.compile(
    r"[\u3400-\u9fff]+|\d+(?:[.,]\d+)?(?:['\u2019]?[a-zA-Z]+)?|[^\W\d_\u3400-\u9fff][^\W_\u3400-\u9fff]*"
    r"(?:['\u2019][^\W_\u3400-\u9fff]+)*|[,\u3001\uff0c;.!?:\u3002\uff01\uff1f\uff1b\uff1a()]|[-\u2010-\u2015]"
)  # without IGNORECASE, which would compare each letter of its ranges by case: a fortieth of a second
_ELISION = re.compile(r"(?:[ldcjnsmt]|qu|lorsqu|jusqu)['\u2019](?=[^\W\d_]{2})", re.IGNORECASE)
_COMMAS = frozenset(",\u3001\uff0c")
_DASHES = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2015")
_GERMAN_LINKS = ("", "s", "n", "en")


@dataclass(frozen=True)
class Token:
    """A phrase of a wish.

    Attributes
    ----------
    said
        As it was typed.
    kinds
        What it may be; "title" with the row as its value, "," and "." for what parts phrases, nothing where it is not
        known.
    """

    said: str
    kinds: Kinds = field(default_factory=dict)

    def any(self, kinds: str) -> bool:
        """Whether it may be one of some kinds, parted by blanks."""
        return any(kind in self.kinds for kind in kinds.split())


def words_of(text: str, lexicon: Lexicon) -> list[tuple[int, int]]:
    """Places of the words of a text; a run of Chinese is parted into the longest phrases that the lexicon knows."""
    found: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        if HAN.match(match[0]):
            found += _chinese(text, start, end, lexicon)
            continue
        elision = _ELISION.match(text, start, end)
        if elision is not None:
            found.append((start, elision.end()))
            start = elision.end()
        found += _compound(text, start, end, lexicon) if lexicon.language == "de" else [(start, end)]
    return found


def _chinese(text: str, start: int, end: int, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    unknown = start
    while start < end:
        length = next(
            (n for n in range(min(lexicon.longest, end - start), 0, -1) if text[start : start + n] in lexicon.exact), 0
        )
        if length and unknown < start:
            yield unknown, start
        if length:
            yield start, start + length
        start += length or 1
        unknown = start if length else unknown
    if unknown < end:
        yield unknown, end


def _compound(text: str, start: int, end: int, lexicon: Lexicon) -> list[tuple[int, int]]:
    """Part a German compound: "Kriegsfilme" is "Kriegs" and "filme", "horrorfrei" is "horror" and "frei"."""
    word = plain(text[start:end])
    if lexicon.kinds(word) or len(word) != end - start:
        return [(start, end)]
    for at in range(len(word) - 3, 2, -1):
        tail = lexicon.exact.get(word[at:], {})
        heads = (word[:at].removesuffix(link) for link in _GERMAN_LINKS)
        if (tail.keys() & {"genre", "thing", "lack_after"}) and any(
            lexicon.kinds(head).keys() & {"genre", "mood"} for head in heads if head
        ):
            return [(start, start + at), (start + at, end)]
    return [(start, end)]


def language_of(text: str, lexicons: Mapping[str, Lexicon]) -> str:
    """Return the language that knows most of a text as it is spelt, names of genres last: many languages share them."""
    if HAN.search(text):
        return "zh"
    words = words_of(text, lexicons["fr"])

    def known(language: str) -> tuple[int, int]:
        found = tokens_of(text, words, [lexicons[language]], letter_by_letter=True)
        tokens = [token for token in found if token.kinds and not token.any(", . -")]
        return sum(len(token.said) for token in tokens if not token.any("genre")), sum(len(t.said) for t in tokens)

    return max(LANGUAGES, key=known)


def tokens_of(
    text: str,
    words: Sequence[tuple[int, int]],
    lexicons: Sequence[Lexicon],
    titles: Mapping[int, tuple[int, int]] | None = None,
    *,
    letter_by_letter: bool = False,
) -> list[Token]:
    """Join words into the longest phrases that the first lexicon knows; of what it does not know the others are asked.

    Parameters
    ----------
    text, words
        The wish, and the places of its words (`words_of`).
    lexicons
        The first is that of the wish's language. The others count for genres and moods only: a word that turns
        something down in another language may be any word in this one.
    titles
        Row and last word, exclusive, of each title by the place of its first word.
    letter_by_letter
        Whether a phrase must be as the lexicon has it, and no other ending counts.
    """
    found = []
    at = 0
    while at < len(words):
        start, end = words[at]
        if titles and at in titles:
            row, last = titles[at]
            found.append(Token(text[start : words[last - 1][1]], {"title": str(row)}))
            at = last
            continue
        if (mark := _mark(text[start:end])) is not None:
            found.append(Token(text[start:end], {mark: ""}))
            at += 1
            continue
        limit = min([len(words), at + 2 * lexicons[0].longest, *(title for title in titles or () if title > at)])
        for last in range(limit, at, -1):
            kinds = _kinds(text, words[at:last], lexicons, letter_by_letter=letter_by_letter)
            if kinds:
                break
        found.append(Token(text[start : words[last - 1][1]], kinds))
        at = last
    return found


def _mark(word: str) -> str | None:
    if word in _COMMAS:
        return ","
    if word in _DASHES:
        return "-"
    return None if word[0].isalnum() else "."


def _kinds(
    text: str, words: Sequence[tuple[int, int]], lexicons: Sequence[Lexicon], *, letter_by_letter: bool
) -> Kinds:
    """Say what a phrase may be. Hyphens count as blanks, other marks are no part of a phrase."""
    said = [text[start:end] for start, end in words]
    marks = [_mark(word) for word in said]
    if marks[-1] or any(mark in (",", ".") for mark in marks):
        return {}
    phrase = " ".join(plain(word) for word, mark in zip(said, marks, strict=True) if not mark)
    kinds = lexicons[0].spelt(phrase) if letter_by_letter else lexicons[0].kinds(phrase)
    if kinds or letter_by_letter:
        return kinds
    for other in lexicons[1:]:
        kinds = {kind: value for kind, value in other.spelt(phrase).items() if kind in ("genre", "mood")}
        if kinds:
            return kinds
    return {}
