"""What people call things in five languages: one TOML file a language, with the same kinds of phrases in each.

A phrase is compared in plain letters. Where it names a thing rather than steers a sentence, its stem will do (Porter's
Snowball stemmers), so "romantischer", "romantiques" and "románticas" need no entry of their own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from palate.data.titles import plain

LANGUAGES: Final = ("en", "de", "fr", "es", "zh")
"""Of two languages that know as many words of a wish, the first is taken."""

_STEMMERS: Final = {"en": "english", "de": "german", "fr": "french", "es": "spanish"}
_TURNING: Final = {"not", "lack", "except", "lack_after", "less", "more", "only", "neutral", "prefer", "other"}
_STEERING: Final = _TURNING | {"break", "and", "or", "want", "prep", "glue", "to", "than"}
"""Kinds that only count letter by letter: a wrong ending must not turn a wish round."""
_CONTRACTED: Final = {
    "fr": {"des": "de", "du": "de", "d": "de", "au": "a", "aux": "a"},
    "es": {"del": "de", "al": "a"},
}
"""Prepositions that have swallowed an article: "marre des" is "marre de"."""
_BEGINNING: Final = 2
HAN: Final = re.compile(r"[\u3400-\u9fff]")

Kinds = Mapping[str, str]
"""What a phrase may be, "genre" or "not", and its value: the genre's plain name, the number as text."""


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Phrases of one language.

    Attributes
    ----------
    language
        Its code.
    exact
        Kinds by phrase in plain letters.
    longest
        Words of the longest phrase, or characters where the language has no blanks.
    """

    language: str
    exact: Mapping[str, dict[str, str]]
    longest: int

    @cached_property
    def _by_beginning(self) -> dict[str, list[str]]:
        """Phrases by how they begin: a stem begins as its word does, so that few of them need be stemmed for a wish."""
        found: dict[str, list[str]] = {}
        for phrase in self.exact:
            found.setdefault(phrase[:_BEGINNING], []).append(phrase)
        return found

    @cached_property
    def _stemmed(self) -> dict[str, dict[str, dict[str, str]]]:
        """Stemmed phrases by how they begin, as far as somebody asked for them."""
        return {}

    def stemmed(self, beginning: str) -> Mapping[str, dict[str, str]]:
        """Kinds by phrase of stems, of those kinds that do not steer a sentence."""
        if beginning not in self._stemmed:
            stem, found = _stems(self.language), dict[str, dict[str, str]]()
            for phrase in self._by_beginning.get(beginning, ()):
                for kind in self.exact[phrase].keys() - _STEERING:
                    found.setdefault(stem(phrase), {}).setdefault(kind, self.exact[phrase][kind])
            self._stemmed[beginning] = found
        return self._stemmed[beginning]

    def spelt(self, phrase: str) -> Kinds:
        """Say what a phrase in plain letters may be, as it is spelt."""
        return self.exact.get(_uncontracted(phrase, self.language), {})

    def kinds(self, phrase: str) -> Kinds:
        """Say what a phrase in plain letters may be; nothing where it is not known."""
        full = _uncontracted(phrase, self.language)
        return self.exact.get(full) or self.stemmed(full[:_BEGINNING]).get(_stems(self.language)(full)) or {}

    def with_genres(self, names: Iterable[str]) -> Lexicon:
        """Know a catalogue's own genres too, by the names that it gives them."""
        own = {plain(name): {"genre": plain(name)} for name in names if plain(name)}
        exact = {name: {**self.exact.get(name, {}), **kinds} for name, kinds in own.items()}
        return Lexicon(self.language, {**self.exact, **exact}, self.longest)


@cache
def lexicon_of(language: str) -> Lexicon:
    """Read the phrases of one of `LANGUAGES`."""
    given = tomllib.loads((Path(__file__).parent / f"{language}.toml").read_text(encoding="utf-8"))
    exact: dict[str, dict[str, str]] = {}
    for kind, value, phrases in _phrases(given):
        for phrase in (_uncontracted(plain(each) or each, language) for each in phrases.split(", ") if each):
            exact.setdefault(phrase, {})[kind] = value
    longest = max(len(phrase) if language == "zh" else phrase.count(" ") + 1 for phrase in exact)
    return Lexicon(language, exact, longest)


def _phrases(given: Mapping[str, object]) -> Iterable[tuple[str, str, str]]:
    """Every kind, value and phrases of a file."""
    for kind, value in given.items():
        if isinstance(value, str):
            yield kind, "", value
        elif isinstance(value, dict) and kind in ("numbers", "decades"):
            yield from ((kind.removesuffix("s"), str(number), phrase) for phrase, number in value.items())
        elif isinstance(value, dict):
            yield from ((kind.removesuffix("s"), name, phrases) for name, phrases in value.items())


def _uncontracted(phrase: str, language: str) -> str:
    words = _CONTRACTED.get(language)
    return " ".join(words.get(word, word) for word in phrase.split(" ")) if words else phrase


@cache
def _stems(language: str) -> Callable[[str], str]:
    """Stemmer of phrases in plain letters."""
    if language not in _STEMMERS:
        return str
    import snowballstemmer  # all its languages: a fortieth of a second

    stemmer = snowballstemmer.stemmer(_STEMMERS[language])
    return lambda phrase: " ".join(stemmer.stemWords(phrase.split()))


_SMALL: Final = _STEERING - {"neutral", "break", "to", "than", "lack_after"} | {"thing"}


def is_small_word(word: str) -> bool:
    """Whether an English word in plain letters only steers a sentence, so that it says nothing about an item."""
    return bool(_SMALL & lexicon_of("en").exact.get(word, {}).keys())


def genre_names(genres: Iterable[str]) -> dict[str, str]:
    """Return a catalogue's genres, as it writes them, by plain name: its own names, and the usual English ones."""
    written = {plain(genre): genre for genre in genres}
    english = lexicon_of("en")
    for name, genre in list(written.items()):
        usual = english.kinds(name).get("genre", "")
        if usual and "+" not in usual:
            written.setdefault(usual, genre)
    return written
