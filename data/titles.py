"""Titles as people type them: without their year, with their article in front, with Roman or Arabic numbers.

Catalogues write "Matrix, The (1999)" and "Seven (Se7en) (1995)"; people write "the matrix" and "se7en". A title has
several *forms*, all in plain letters; two titles are the same if they share one. `title_index.py` finds titles by them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

ARTICLES: Final = "the|a|an|le|la|les|l|il|lo|gli|i|el|los|las|der|die|das|ein|eine|un|une|det|den|o|os|as"
ROMAN: Final = {
    "ii": "2",
    "iii": "3",
    "iv": "4",
    "vi": "6",
    "vii": "7",
    "viii": "8",
    "ix": "9",
    "xi": "11",
    "xii": "12",
}
"""Roman numbers that are no words or letters by themselves, as i, v and x are."""
SIGNS: Final = "'\u2019\u2122\u00ae\u00a9"
"""What a title may have or lack."""
CASE: Final = {"\u00df": "ss", "\u03c2": "\u03c3"}
"""Letters whose lower case is not how they compare: sharp s and final sigma."""
MAX_FORM: Final = 200
"""Characters of a form; what a longer title has beyond them does not count."""
ALIAS: Final = "a.k.a. "

_YEAR = re.compile(r"\(?\b((?:1[89]|20)\d\d)\)?\s*$")
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_LEADING = re.compile(rf"^(?:{ARTICLES}) (?=\S)")
_TRAILING = re.compile(rf"^(.*\S)\s*,\s*({ARTICLES})'?$")
_SUBTITLE = re.compile(r":| - ")
_NOT_WORD = re.compile(r"[\W_]+")
_PLAIN = re.compile(r"[a-z0-9]+(?: [a-z0-9]+)*")
_CASE = str.maketrans(CASE)
_NO_SIGNS = str.maketrans("", "", SIGNS)


def plain(text: str) -> str:
    """Reduce text to lower-case words without accents or punctuation; "&" reads "and"."""
    if _PLAIN.fullmatch(text):  # most words of a lexicon are
        return text
    letters = text.translate(_NO_SIGNS).lower()
    if not letters.isascii():
        letters = _without_accents(_without_accents(letters).lower().translate(_CASE))
    letters = letters.replace("&", " and ")
    return _NOT_WORD.sub(" ", letters).strip()


def _without_accents(letters: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKD", letters) if unicodedata.category(each) != "Mn")


def title_year(text: str) -> tuple[str, int | None]:
    """Part "Heat (1995)" into the title and its year; a text that is nothing but a year is a title."""
    found = _YEAR.search(text)
    if found is None or not text[: found.start()].strip():
        return text, None
    return text[: found.start()].strip(), int(found.group(1))


def has_bare_year(title: str) -> bool:
    """Whether a title ends in a year that may be a part of it: "Blade Runner 2049"."""
    return not title.rstrip().endswith(")") and title_year(title)[1] is not None


def title_forms(title: str) -> tuple[str, ...]:
    """Plain forms under which a title may be typed, the fullest first.

    "Matrix, The (1999)" gives "the matrix" and "matrix", "Seven (Se7en) (1995)" gives "seven se7en", "seven", "se7en";
    "Blade Runner 2049" gives "blade runner 2049" and "blade runner", "Rocky II" gives "rocky 2". `short_forms` gives
    the part before a colon.
    """
    name, _ = title_year(title)
    if has_bare_year(title):
        return tuple(dict.fromkeys((*name_forms(title), *(title_forms(name) if plain(name) else ()))))
    inner = _PARENTHESES.findall(name)
    outer = without_parentheses(name)
    forms: dict[str, None] = {}
    for part in [f"{_article_first(outer)} {' '.join(inner)}", outer, *inner] if inner else [outer]:
        forms.update(dict.fromkeys(name_forms(part.lower().removeprefix(ALIAS))))
    return tuple(form for form in forms if form) or ((plain(title) or title.casefold())[:MAX_FORM],)


def short_forms(title: str) -> tuple[str, ...]:
    """Plain forms of the part before a colon or a dash: "terminator 2" of "Terminator 2: Judgment Day (1991)"."""
    outer = without_parentheses(title_year(title)[0])
    head = _SUBTITLE.split(outer)[0]
    return tuple(form for form in dict.fromkeys(name_forms(head)) if form) if head != outer else ()


def name_forms(name: str) -> tuple[str, str]:
    """Plain forms of a title without year or parentheses: with its article first, and without it."""
    form = " ".join(ROMAN.get(word, word) for word in plain(_article_first(name)).split(" "))[:MAX_FORM]
    return form, _LEADING.sub("", form)


def first_form(title: str) -> str:
    """Fullest plain form of a title without what stands in parentheses."""
    return name_forms(without_parentheses(title_year(title)[0]) or title)[0]


def without_parentheses(name: str) -> str:
    """Take out what stands in parentheses."""
    return _PARENTHESES.sub(" ", name).strip()


def _article_first(name: str) -> str:
    found = _TRAILING.match(name.strip().lower())
    return f"{found.group(2)} {found.group(1)}" if found else name
