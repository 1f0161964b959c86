"""Find a title as people type it: without its year, with its article in front, with typos.

Catalogues write "Matrix, The (1999)" and "Seven (Se7en) (1995)"; people write "the matrix" and "se7en". Each title is
indexed under all such forms. Similarity is the normalised indel distance (rapidfuzz' `ratio`: Hyyro, Pinzon &
Shinohara 2005), and for a search the best of whole, reordered and partial matches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

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
_SLIP = 90.0
"""Percent of similarity from which a title may be another with a slip, if it has the same numbers."""
_LEAD = 5.0
"""Percent by which it must be more similar than all other items."""
_END = 4
"""Letters at the beginning and the end of a title by which others are found that may be the same with a slip."""
_LONG = 8
"""Titles of fewer letters need the same year for that."""
_SIGNS = str.maketrans("", "", "'\u2019\u2122\u00ae\u00a9")
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9", "xi": "11", "xii": "12"}
"""Roman numbers that are no words or letters by themselves, as i, v and x are."""
_LEAST_SHOWN = 0.75
"""Below this similarity a title is no match, unless it has most words of the text: of MovieLens, misspelt titles reach
0.79, and titles that it lacks 0.73."""
_WORD_SLIP = 80.0
"""Percent of similarity from which a word may be another with a slip."""
_LEAST_OF_BEST = 0.7
"""Below this share of the best similarity a title is not worth showing."""


def plain(text: str) -> str:
    """Reduce text to lower-case words without accents or punctuation; "&" reads "and"."""
    letters = text.translate(_SIGNS).casefold()
    if not letters.isascii():
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letters).casefold())
        letters = "".join(letter for letter in folded if not unicodedata.combining(letter))
    letters = letters.replace("&", " and ")
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
    "Blade Runner 2049" gives "blade runner 2049" and "blade runner". `short_forms` gives the part before a colon.
    """
    name, year = title_year(title)
    if year is not None and not title.rstrip().endswith(")"):
        return tuple(dict.fromkeys((*_forms(title), *title_forms(name))))
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


def _arabic(form: str) -> str:
    """Write the Roman numbers of a plain form in digits, so that "rocky ii" and "rocky 2" are one."""
    return " ".join(_ROMAN.get(word, word) for word in form.split(" "))


def _ends(form: str) -> tuple[str, str]:
    return f"{form[:_END]} ...", f"... {form[-_END:]}"


def _numbers(form: str) -> list[str]:
    return [word for word in form.split(" ") if any(letter.isdecimal() for letter in word)]


Certainty = Literal["exact", "likely"]


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
        self._years = np.array(
            [int(year) or title_year(title)[1] or 0 for title, year in zip(titles, years, strict=True)], dtype=np.int32
        )
        self._rank = np.zeros(len(titles)) if popularity is None else -popularity.astype(np.float64)
        self._forms: list[str] = []
        self._owners: list[int] = []
        self._first: list[str] = []
        self._whole: list[bool] = []
        self._exact: dict[tuple[str, bool], list[int]] = {}
        for item, title in enumerate(titles):
            forms = title_forms(title)
            outer = _PARENTHESES.sub(" ", title_year(title)[0]).strip()
            self._first.append(_arabic(_forms(outer or title)[0]))
            short = [form for form in short_forms(title) if form not in forms]
            for form, whole in [*((form, True) for form in forms), *((form, False) for form in short)]:
                self._forms.append(form)
                self._owners.append(item)
                self._whole.append(whole)
                self._exact.setdefault((_arabic(form), whole), []).append(item)

    def ranked_by(self, popularity: FloatingArray | None) -> TitleIndex:
        """Return the same index, with the better known of equally similar titles first, [num_items]."""
        ranked = copy(self)
        if popularity is not None:
            ranked._rank = -popularity.astype(np.float64)
        return ranked

    def exact(self, text: str) -> tuple[int, ...]:
        """Items of which the text is a form, the best known first; a year at its end must agree where it can."""
        name, year = title_year(text)
        if year is not None and not text.rstrip().endswith(")") and (found := self._of_forms(_forms(text), whole=True)):
            return tuple(self._ordered(found))  # the year is a part of the title
        forms = title_forms(text)
        for whole in (True, False):
            found = self._of_forms(forms, whole=whole)
            if found:
                break
        return tuple(self._ordered(self._of_year(found, year if name != text else None)))

    def identify(self, title: str, others: Sequence[str] = (), *, likely: bool = True) -> tuple[int, Certainty] | None:
        """Find the one item that a title of somebody's history is; remakes are told apart by the year.

        Exact is a form of the whole title with the same year, or where either has none; or what stands before its colon
        with the same year. Likely is a form with the year before or after, one without its subtitle in the same year,
        another title of the same item, or a slip of a letter that leaves all numbers as they are.

        Parameters
        ----------
        title
            With a year at its end, if it is known.
        others
            Other titles of the same item, best first.
        likely
            Whether to look for more than exact titles.

        Returns
        -------
        tuple or None
            Row of the item and how certain it is; None where no item is like it, or several are.
        """
        name, year = title_year(title)
        written = title_forms(title)
        if not title.rstrip().endswith(")") and year is not None:  # the year may be a part of the title
            found = self._single(self._of_forms(_forms(title), whole=True), _forms(title))
            if found is not None:
                return found, "exact"
        near, exact_year = {0, year}, {year}
        whole = self._of_forms(written, whole=True)
        short = self._of_forms(written, whole=False)
        agreeing = whole if year is None else [item for item in whole if int(self._years[item]) in near]
        found = self._single(self._of_year(agreeing, year), written)
        if found is None and not agreeing and year is not None:
            found = self._single([item for item in short if self._years[item] in exact_year], written)
        if found is not None:
            return found, "exact"
        if not likely or agreeing:
            return None
        candidates = [
            [item for item in whole if year is not None and abs(int(self._years[item]) - year) == 1],
            [item for item in self._of_forms(short_forms(title), whole=True) if self._years[item] in exact_year],
        ]
        dated = (other if year is None or title_year(other)[1] else f"{other} ({year})" for other in others)
        candidates += [self._agreeing(self._of_forms(title_forms(other), whole=True), year) for other in dated]
        for items in candidates:
            found = self._single(items, written)
            if found is not None:
                return found, "likely"
        found = self._slip(_forms(name)[1], year)
        return None if found is None else (found, "likely")

    def _of_forms(self, forms: Iterable[str], *, whole: bool) -> list[int]:
        """Items that have one of the forms, without repeats."""
        return list(dict.fromkeys(item for form in forms for item in self._exact.get((_arabic(form), whole), ())))

    def _agreeing(self, items: list[int], year: int | None) -> list[int]:
        return self._of_year([item for item in items if year is None or int(self._years[item]) in (0, year)], year)

    def _single(self, items: list[int], forms: Sequence[str]) -> int | None:
        """Return the one of some items; of several, the one whose title has the same article or none."""
        if len(items) > 1:
            items = [item for item in items if self._first[item] == _arabic(forms[0])]
        return items[0] if len(items) == 1 else None

    @cached_property
    def _by_end(self) -> dict[str, list[int]]:
        """Whole forms by how they begin and how they end: one slip leaves one of both as it is."""
        found: dict[str, list[int]] = {}
        for index, (form, whole) in enumerate(zip(self._forms, self._whole, strict=True)):
            for end in _ends(form) if whole else ():
                found.setdefault(end, []).append(index)
        return found

    def _slip(self, wanted: str, year: int | None) -> int | None:
        """Return the one item whose title is this with a slip of a letter, and that has no other year."""
        if len(wanted) <= _SHORT:
            return None
        best: dict[int, float] = {}
        alike = {index: self._forms[index] for end in _ends(wanted) for index in self._by_end.get(end, ())}
        for form, score, index in process.extract(wanted, alike, scorer=fuzz.ratio, score_cutoff=_SLIP, limit=50):
            item = self._owners[index]
            its_year = int(self._years[item])
            if _numbers(_arabic(form)) != _numbers(_arabic(wanted)):
                continue
            if year is not None and its_year and abs(its_year - year) > 1:
                continue
            if len(wanted) >= _LONG or (year is not None and its_year == year):
                best[item] = max(best.get(item, 0.0), score)
        ranked = sorted(best, key=lambda item: -best[item])
        if not ranked or (len(ranked) > 1 and best[ranked[1]] > best[ranked[0]] - _LEAD):
            return None
        return ranked[0]

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
            similarity = _similarity(wanted, form) * (1.0 if self._whole[index] else _SHORT_FORM)
            if similarity >= _LEAST_SHOWN or _shares_most_words(wanted, form):
                best[item] = max(best.get(item, 0.0), similarity)
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


def alike(one: str, other: str) -> float:
    """Similarity of two titles without their years, in percent; words may stand in any order."""
    return fuzz.token_set_ratio(title_forms(one)[0], title_forms(other)[0])


def _shares_most_words(wanted: str, form: str) -> bool:
    """Whether more than half of a search text's letters are in words that a title has too, slips of letters allowed."""
    words, own = wanted.split(), form.split()
    shared = (word for word in words if word in own or any(fuzz.ratio(word, other) >= _WORD_SLIP for other in own))
    return 2 * sum(map(len, shared)) > sum(map(len, words))


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
