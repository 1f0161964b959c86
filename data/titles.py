"""Find a title as people type it: without its year, with its article in front, with typos.

Catalogues write "Matrix, The (1999)" and "Seven (Se7en) (1995)"; people write "the matrix" and "se7en". Each title is
indexed under all such forms. Similarity is the normalised indel distance (rapidfuzz' `ratio`: Hyyro, Pinzon &
Shinohara 2005), and for a search the best of whole, reordered and partial matches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import fuzz, process

from palate.models.arrays import FloatingArray, IntegerArray

_YEAR = re.compile(r"\(?\b((?:1[89]|20)\d\d)\)?\s*$")
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_ARTICLES = "the|a|an|le|la|les|l|il|lo|gli|i|el|los|las|der|die|das|ein|eine|un|une|det|den|o|os|as"
_LEADING = re.compile(rf"^(?:{_ARTICLES}) (?=\S)")
_TRAILING = re.compile(rf"^(.*\S)\s*,\s*({_ARTICLES})'?$")
_SUBTITLE = re.compile(r":| - ")
_NOT_WORD = re.compile(r"[\W_]+")
_SHORT = 4
"""Titles of so few letters have too many neighbours for fuzzy matching: they must match letter by letter."""
_SHORT_FORM = 0.97
_LEAST_OF_BEST = 0.7
"""Below this share of the best similarity a title is not worth showing."""


def plain(text: str) -> str:
    """Reduce text to lower-case words without accents or punctuation; "&" reads "and"."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters = "".join(letter for letter in folded if not unicodedata.combining(letter))
    letters = letters.replace("&", " and ").replace("'", "").replace("\u2019", "")
    return _NOT_WORD.sub(" ", letters).strip()


def title_year(text: str) -> tuple[str, int | None]:
    """Part "Heat (1995)" into the title and its year; a text that is nothing but a year is a title."""
    found = _YEAR.search(text)
    if found is None or not text[: found.start()].strip():
        return text, None
    return text[: found.start()].strip(), int(found.group(1))


def title_forms(title: str) -> tuple[str, ...]:
    """Plain forms under which a title may be typed, the fullest first.

    "Matrix, The (1999)" gives "the matrix" and "matrix", "Seven (Se7en) (1995)" gives "seven se7en", "seven", "se7en";
    `short_forms` gives the part before a colon.
    """
    name, _ = title_year(title)
    inner = _PARENTHESES.findall(name)
    outer = _PARENTHESES.sub(" ", name).strip()
    forms: dict[str, None] = {}
    for part in [f"{_article_first(outer)} {' '.join(inner)}", outer, *inner] if inner else [outer]:
        forms.update(dict.fromkeys(_forms(part.removeprefix("a.k.a. "))))
    return tuple(form for form in forms if form) or (plain(title) or title.casefold(),)


def short_forms(title: str) -> tuple[str, ...]:
    """Plain forms of the part before a colon or a dash: "terminator 2" of "Terminator 2: Judgment Day (1991)"."""
    outer = _PARENTHESES.sub(" ", title_year(title)[0]).strip()
    head = _SUBTITLE.split(outer)[0]
    return tuple(form for form in dict.fromkeys(_forms(head)) if form) if head != outer else ()


def _forms(name: str) -> tuple[str, str]:
    form = plain(_article_first(name))
    return form, _LEADING.sub("", form)


def _article_first(name: str) -> str:
    found = _TRAILING.match(name.strip().casefold())
    return f"{found.group(2)} {found.group(1)}" if found else name


@dataclass(frozen=True)
class Match:
    """A title that was found.

    Attributes
    ----------
    item
        Row of the item.
    similarity
        1 for the very title, 0 for nothing in common.
    """

    item: int
    similarity: float


class TitleIndex:
    """Titles of a catalogue, ready to be searched.

    Parameters
    ----------
    titles
        As the catalogue writes them, [num_items].
    years
        0 where unknown, int [num_items].
    popularity
        The better known of two equally similar titles comes first, [num_items]; the order of the catalogue without it.
    """

    def __init__(
        self,
        titles: Sequence[str],
        years: IntegerArray,
        popularity: FloatingArray | None = None,
    ) -> None:
        self._years = years
        self._rank = np.zeros(len(titles)) if popularity is None else -popularity.astype(np.float64)
        self._forms: list[str] = []
        self._owners: list[int] = []
        self._whole: list[bool] = []
        self._exact: dict[tuple[str, bool], list[int]] = {}
        for item, title in enumerate(titles):
            forms = title_forms(title)
            short = [form for form in short_forms(title) if form not in forms]
            for form, whole in [*((form, True) for form in forms), *((form, False) for form in short)]:
                self._forms.append(form)
                self._owners.append(item)
                self._whole.append(whole)
                self._exact.setdefault((form, whole), []).append(item)

    def exact(self, text: str) -> tuple[int, ...]:
        """Items of which the text is a form, the best known first; a year at its end must agree where it can."""
        name, year = title_year(text)
        forms = title_forms(text)
        for whole in (True, False):
            found = [item for form in forms for item in self._exact.get((form, whole), ())]
            if found:
                break
        return tuple(self._ordered(self._of_year(list(dict.fromkeys(found)), year if name != text else None)))

    def closest(self, text: str, *, least: float) -> Match | None:
        """Find the title that the whole text is meant to be, or None if no title is at least so similar, in [0, 1]."""
        exact = self.exact(text)
        if exact:
            return Match(exact[0], 1.0)
        name, year = title_year(text)
        wanted = plain(name)
        if len(wanted) <= _SHORT:
            return None
        found = process.extract(wanted, self._forms, scorer=fuzz.ratio, score_cutoff=100 * least, limit=20)
        if not found:
            return None
        best = max(score for _, score, _ in found)
        owners = [self._owners[index] for _, score, index in found if score == best]
        return Match(self._ordered(self._of_year(owners, year))[0], best / 100)

    def search(self, text: str, count: int = 10) -> tuple[Match, ...]:
        """Find titles for a person to choose from, most similar first.

        A title that starts with the text, or holds it as a word, comes before one that is only spelt similarly.
        """
        name, year = title_year(text)
        wanted = plain(name)
        if not wanted:
            return ()
        best: dict[int, float] = {}
        found = process.extract(wanted, self._forms, scorer=fuzz.WRatio, score_cutoff=60, limit=max(50, 5 * count))
        for form, _, index in found:
            item = self._owners[index]
            best[item] = max(
                best.get(item, 0.0), _similarity(wanted, form) * (1.0 if self._whole[index] else _SHORT_FORM)
            )
        if year is not None:
            best = {item: value - (0.0 if self._years[item] == year else 0.1) for item, value in best.items()}
        ranked = sorted(best, key=lambda item: (-best[item], self._rank[item], item))
        least = _LEAST_OF_BEST * best[ranked[0]] if ranked else 0.0
        return tuple(Match(item, max(best[item], 0.0)) for item in ranked[:count] if best[item] >= least)

    def _of_year(self, items: list[int], year: int | None) -> list[int]:
        agreeing = [item for item in items if self._years[item] == year]
        return agreeing if year is not None and agreeing else items

    def _ordered(self, items: list[int]) -> list[int]:
        return sorted(items, key=lambda item: (self._rank[item], item))


def _similarity(wanted: str, form: str) -> float:
    """Similarity of a search text and a title, in [0, 1]."""
    whole = max(fuzz.ratio(wanted, form), 0.97 * fuzz.token_sort_ratio(wanted, form)) / 100
    if f" {form} ".startswith(f" {wanted} "):
        part = 0.95
    elif f" {wanted} " in f" {form} ":
        part = 0.9
    elif form.startswith(wanted):
        part = 0.85
    else:
        long_enough = _SHORT < len(wanted) <= len(form)
        part = 0.8 * fuzz.partial_ratio(wanted, form) / 100 if long_enough else 0.0
    return max(whole, part)
