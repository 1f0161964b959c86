"""The labelled wishes of tests/client/recommending/wishes/, and whether an answer does what a label says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.client.owner.opening import content_alone
from palate.client.recommending.answers import Answer
from palate.client.recommending.preferences import Preferences
from palate.client.recommending.recommender import Person, Recommender
from palate.data.catalogue import Catalogue
from palate.models.scores.registry import fitting_of
from palate.models.training import LocalTraining

HERE = Path(__file__).parent / "wishes"
_BOUND = re.compile(r"(year|minutes)(<=|>=|<|>|=)(\d+)")


@dataclass(frozen=True)
class Film:
    title: str
    genres: tuple[str, ...]
    year: int
    minutes: int
    people: tuple[str, ...]

    def has(self, condition: str) -> bool:
        """Whether one of the alternatives of a condition holds."""
        bound = _BOUND.fullmatch(condition)
        if bound is not None:
            value, limit = getattr(self, bound[1]), int(bound[3])
            return {
                "<=": value <= limit,
                ">=": value >= limit,
                "<": value < limit,
                ">": value > limit,
                "=": value == limit,
            }[bound[2]]
        kind, _, value = condition.partition("=")
        if kind == "decade":
            return self.year // 10 * 10 == int(value)
        if kind == "person":
            return value in self.people
        if kind == "title":
            return self.title.startswith(f"{value} (")
        return any(genre in self.genres for genre in condition.split("/"))


@dataclass(frozen=True)
class Wish:
    language: str
    text: str
    rules: tuple[tuple[str, str], ...]


def films() -> list[Film]:
    found = []
    for line in (HERE / "films.txt").read_text(encoding="utf-8").splitlines():
        title, genres, minutes, people = (part.strip() for part in line.split("|"))
        kinds = tuple(sorted(genres.split()))
        found.append(Film(title, kinds, int(title[-5:-1]), int(minutes), tuple(people.split(", "))))
    return found


def wishes(name: str) -> list[Wish]:
    found = []
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        language, text, rules = (part.strip() for part in line.split("|"))
        pairs = (rule.strip().partition(" ") for rule in rules.split(";"))
        found.append(Wish(language, text, tuple((verb, condition) for verb, _, condition in pairs)))
    return found


def catalogue_of(known: list[Film]) -> Catalogue:
    return Catalogue(
        ids=tuple(f"film-{row}" for row in range(len(known))),
        titles=tuple(film.title for film in known),
        genres=tuple(film.genres for film in known),
        years=np.array([film.year for film in known], dtype=np.int32),
        texts=tuple(f"{film.minutes} min. With {', '.join(film.people)}." for film in known),
    )


def person_of(catalogue: Catalogue, encoder=None) -> tuple[Recommender, Person]:
    """A person of whom nothing is known, before the first round."""
    table, names = content_alone(catalogue)
    recommender = Recommender(table, catalogue, names, fitting_of(LocalTraining(model="gmf")), encoder=encoder)
    return recommender, recommender.person(Preferences(items=np.zeros(0, dtype=np.int32)))


def failures(wish: Wish, answer: Answer, known: list[Film]) -> list[str]:
    """What a label demands and an answer does not do; inversions begin with "inverted"."""
    shown = [known[line.item] for line in answer.recommendations]
    found = [] if shown else ["nothing is listed"]
    for verb, condition in wish.rules:
        having = [film.title for film in shown if film.has(condition)]
        if verb == "all" and len(having) < len(shown):
            found.append(f"not all {condition}")
        elif verb == "most" and 2 * len(having) < len(shown):
            found.append(f"too few {condition}")
        elif verb == "none" and having:
            found.append(f"inverted: {condition} in {having[0]}")
        elif verb == "ask":
            asked = " ".join(answer.request.questions())
            if condition not in asked:
                found.append(f"{condition} is not asked about")
    return found
