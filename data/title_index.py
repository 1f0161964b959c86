"""Find the item whose title somebody typed or exported: exactly, with a slip of a letter, or in part.

Similarity is the normalised indel distance (rapidfuzz' `ratio`: Hyyro, Pinzon & Shinohara 2005), and for a search the
best of whole, reordered and partial matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rapidfuzz import fuzz

from palate.data.form_index import FormIndex
from palate.data.titles import first_form, has_bare_year, name_forms, short_forms, title_forms, title_year
from palate.models.arrays import FloatingArray, IntegerArray

_SHORT = 4
"""Titles of so few letters have too many neighbours for fuzzy matching: they must match letter by letter."""
_SHORT_FORM = 0.97
_SLIP = 90.0
"""Percent of similarity from which a title may be another with a slip, if it has the same numbers."""
_LEAD = 5.0
"""Percent by which it must be more similar than all other items."""
_LONG = 8
"""Titles of fewer letters need the same year for that."""
_LEAST_SHOWN = 0.75
"""Below this similarity a title is no match, unless it has most words of the text: of MovieLens, misspelt titles reach
0.79, and titles that it lacks 0.73."""
_WORD_SLIP = 80.0
"""Percent of similarity from which a word may be another with a slip."""
_LEAST_OF_BEST = 0.7
"""Below this share of the best similarity a title is not worth showing."""

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
    forms
        Of these titles, where they were kept.
    """

    def __init__(
        self,
        titles: Sequence[str],
        years: IntegerArray,
        popularity: FloatingArray | None = None,
        *,
        forms: FormIndex | None = None,
    ) -> None:
        self.forms = FormIndex.of(titles, years.astype(np.int32)) if forms is None else forms
        self._titles = titles
        self._years = self.forms.years
        self._rank = np.zeros(len(titles)) if popularity is None else -popularity.astype(np.float64)

    def ranked_by(self, popularity: FloatingArray | None) -> TitleIndex:
        """Return the same index, with the better known of equally similar titles first, [num_items]."""
        ranked = copy(self)
        if popularity is not None:
            ranked._rank = -popularity.astype(np.float64)
        return ranked

    def exact(self, text: str) -> tuple[int, ...]:
        """Items of which the text is a form, the best known first; a year at its end must agree where it can."""
        name, year = title_year(text)
        if has_bare_year(text) and (found := self._of_forms(name_forms(text), whole=True)):
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
        if has_bare_year(title):  # the year may be a part of the title
            found = self._single(self._of_forms(name_forms(title), whole=True), name_forms(title))
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
        found = self._slip(name_forms(name)[1], year)
        return None if found is None else (found, "likely")

    def _of_forms(self, forms: Iterable[str], *, whole: bool) -> list[int]:
        """Items that have one of the forms, without repeats."""
        index = self.forms
        found = (at for form in forms for at in index.of_form(form) if index.whole[at] == whole)
        return list(dict.fromkeys(int(index.owners[at]) for at in found))

    def _agreeing(self, items: list[int], year: int | None) -> list[int]:
        return self._of_year([item for item in items if year is None or int(self._years[item]) in (0, year)], year)

    def _single(self, items: list[int], forms: Sequence[str]) -> int | None:
        """Return the one of some items; of several, the one whose title has the same article or none."""
        if len(items) > 1:
            items = [item for item in items if first_form(self._titles[item]) == forms[0]]
        return items[0] if len(items) == 1 else None

    def _slip(self, wanted: str, year: int | None) -> int | None:
        """Return the one item whose title is this with a slip of a letter, and that has no other year."""
        if len(wanted) <= _SHORT:
            return None
        best: dict[int, float] = {}
        for at, score in self.forms.similar(wanted, _SLIP):
            item = int(self.forms.owners[at])
            its_year = int(self._years[item])
            if not self.forms.whole[at] or _numbers(self.forms.form(at)) != _numbers(wanted):
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
        wanted = name_forms(name)[0]
        if len(wanted) <= _SHORT:
            return None
        found = self.forms.similar(wanted, 100 * least)
        if not found:
            return None
        best = max(score for _, score in found)
        owners = [int(self.forms.owners[at]) for at, score in found if score == best]
        return Match(self._ordered(self._of_year(owners, year))[0], best / 100)

    def search(self, text: str, count: int = 10) -> tuple[Match, ...]:
        """Find titles for a person to choose from, most similar first.

        A title that starts with the text, or holds it as a word, comes before one that is only spelt similarly.
        """
        name, year = title_year(text)
        wanted = name_forms(name)[0]
        if not wanted:
            return ()
        best: dict[int, float] = {}
        for at in self.forms.sharing(wanted):
            item, form = int(self.forms.owners[at]), self.forms.form(at)
            similarity = _similarity(wanted, form) * (1.0 if self.forms.whole[at] else _SHORT_FORM)
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


def _numbers(form: str) -> list[str]:
    return [word for word in form.split(" ") if any(letter.isdecimal() for letter in word)]


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
