"""Titles within a wish: in quotation marks, after "like" or "newer than", or written as titles are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from palate.client.wishes.lexicon import Lexicon
from palate.data.title_index import TitleIndex
from palate.data.titles import plain

_QUOTED = re.compile(
    r"\"([^\"]+)\"|\u201c([^\u201c\u201d]+)\u201d|\u201e([^\u201c\u201d\u201e]+)[\u201c\u201d]|\u00ab([^\u00ab\u00bb]+)\u00bb"
    r"|\u00bb([^\u00ab\u00bb]+)\u00ab|\u300a([^\u300a\u300b]+)\u300b|\u300c([^\u300c\u300d]+)\u300d"
)
_WORDS = 12
_LEAST = 0.9
_SUGGEST_LEAST = 0.7
_TURNS = frozenset({"break", "not", "lack", "except"})
"""Kinds of words that, after a comma, begin another thought: only the very title goes on there."""
_CUES = "like unlike newer older same_year than before after since until under over short long"
_ENDS = frozenset(',;.!?:()"\u201c\u201d\u3001\uff0c\u3002')

Words = Sequence[tuple[int, int]]


def find_titles(
    text: str, words: Words, index: TitleIndex, lexicons: Sequence[Lexicon]
) -> tuple[dict[int, tuple[int, int]], tuple[tuple[str, int], ...]]:
    """Find titles, and phrases after a cue that are nearly titles.

    Parameters
    ----------
    text, words
        The wish, and the places of its words.
    index
        Titles of the catalogue.
    lexicons
        Of all languages, that of the wish first.

    Returns
    -------
    titles
        Row and last word, exclusive, of each title by the place of its first word.
    suggestions
        Each phrase with the row of the nearest title.
    """
    search = _Search(text, words, index, lexicons)
    search.quoted()
    if search.whole():
        return search.found, ()
    search.cued()
    search.bare()
    return search.found, tuple(search.suggestions)


class _Search:
    """One wish, searched for titles."""

    def __init__(self, text: str, words: Words, index: TitleIndex, lexicons: Sequence[Lexicon]) -> None:
        self._text, self._words, self._index, self._lexicons = text, words, index, lexicons
        self.found: dict[int, tuple[int, int]] = {}
        self.suggestions: list[tuple[str, int]] = []
        self._claimed = [False] * len(words)

    def quoted(self) -> None:
        """Take what is in quotation marks, if it is a title."""
        for match in _QUOTED.finditer(self._text):
            inner = next(group for group in match.groups() if group)
            start, end = match.start(match.lastindex or 0), match.end(match.lastindex or 0)
            inside = [at for at, (begins, _) in enumerate(self._words) if start <= begins < end]
            title = self._index.closest(inner, least=_LEAST)
            if title is not None and inside:
                self._claim(inside[0], inside[-1] + 1, title.item)

    def whole(self) -> bool:
        """Take the whole wish, if it is a title and no word of the vocabulary."""
        exact = self._index.exact(self._text.strip())
        if not exact or self.found or not self._words or self._is_listed(self._text):
            return False
        self._claim(0, len(self._words), exact[0])
        return True

    def cued(self) -> None:
        """Take titles after a cue, and further ones after "and": "like Heat and Casino"."""
        at = 0
        while at < len(self._words):
            length = 0 if self._claimed[at] else self._cue(at)
            start = at + length
            at = max(start, at + 1)
            if not length:
                continue
            further = False
            while (read := self._title_at(start)) is not None:
                row, end = read
                if further and not self._pauses(end):  # "like Heat, hidden gems" does not mean the film Hidden
                    break
                further = True
                self._claim(start, end, row)
                at = end
                if end >= len(self._words) or not (self._said(end, end + 1) == "," or self._kinds(end) & {"and", "or"}):
                    break
                start = end + 1
            if not further and "like" in self._kinds(start - length, start):
                self._suggest(start)

    def bare(self) -> None:
        """Take what is written as a title and is one, letter by letter: capitals, and no word of the vocabulary."""
        at = 0
        while at < len(self._words):
            for end in range(min(len(self._words), at + _WORDS), at, -1):
                said = self._said(at, end)
                if not said[:1].isupper() or any(self._claimed[at:end]) or self._said(end - 1, end) in _ENDS:
                    continue
                if self._is_listed(said) or (end == at + 1 and self._kinds(at)):
                    continue
                exact = self._index.exact(said)
                if exact:
                    self._claim(at, end, exact[0])
                    break
            at += 1

    def _claim(self, start: int, end: int, row: int) -> None:
        self.found[start] = (row, end)
        self._claimed[start:end] = [True] * (end - start)

    def _said(self, start: int, end: int) -> str:
        return self._text[self._words[start][0] : self._words[end - 1][1]] if start < end <= len(self._words) else ""

    def _kinds(self, start: int, end: int | None = None) -> set[str]:
        phrase = plain(self._said(start, start + 1 if end is None else end))
        return set(self._lexicons[0].kinds(phrase))

    def _cue(self, at: int) -> int:
        """How many words, from this one, announce a title; 0 if they do not."""
        for end in range(min(len(self._words), at + self._lexicons[0].longest), at, -1):
            if set(_CUES.split()) & self._kinds(at, end):
                return end - at
        return 0

    def _title_at(self, start: int) -> tuple[int, int] | None:
        """Longest title that starts at a word, as its row and the end of it."""
        last = min(len(self._words), start + _WORDS)
        turn = next((at for at in range(start + 1, last) if self._turns(at)), last)
        for end in range(last, start, -1):
            said = self._said(start, end)
            if any(self._claimed[start:end]) or said[-1] in _ENDS - {")"} or not plain(said):
                continue
            if self._is_listed(said) and not self._is_named(said):
                continue
            match = self._index.closest(said, least=_LEAST if end <= turn else 1.0)
            if match is not None:
                return match.item, end
        return None

    def _suggest(self, start: int) -> None:
        """Suggest a title that is similar to the words from here."""
        end = start
        while (
            end < len(self._words)
            and self._said(end, end + 1) not in _ENDS
            and not self._kinds(end) & {"break", "prep", "not"}
        ):
            end += 1
        said = self._said(start, end)
        unknown = [at for at in range(start, end) if not self._kinds(at)]
        if not unknown or any(self._claimed[start:end]) or self._kinds(start) - {"glue"}:
            return
        near = self._index.search(said, 1)
        self.suggestions += [(said, one.item) for one in near if one.similarity >= _SUGGEST_LEAST]

    def _is_listed(self, said: str) -> bool:
        """Whether a phrase is of the vocabulary, so that it is no title in passing."""
        words = plain(said).split()
        own, *others = self._lexicons
        tails = [" ".join(words[at:]) for at in (0, 1) if words[at:]]
        if any(own.kinds(tail) or any(other.spelt(tail) for other in others) for tail in tails):
            return True
        return all(own.kinds(word) for word in words)

    def _is_named(self, said: str) -> bool:
        """Whether a phrase of the vocabulary is meant as a title all the same: "like Alien", but not "like horror"."""
        genre = "genre" in self._lexicons[0].kinds(plain(said))
        return said[:1].isupper() and not genre and bool(self._index.exact(said))

    def _turns(self, at: int) -> bool:
        return self._said(at - 1, at) in _ENDS and bool(self._kinds(at) & _TURNS)

    def _pauses(self, at: int) -> bool:
        return (
            at >= len(self._words)
            or self._said(at, at + 1) in _ENDS
            or bool(self._kinds(at) & {"and", "or", "break", "prep"})
        )
