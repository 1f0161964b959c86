"""The demo: invented films and viewers, believable enough to judge a recommendation by its title.

Each viewer mixes circles of taste (a few strands, an era, a mood), drifts from one circle to another over four
years, follows directors and sagas, and is drawn to what is popular or new. What is watched is sampled without
replacement by the Gumbel-top-k trick (Kool et al. 2019). All of it is integer arithmetic on PCG64's raw stream,
the one part of NumPy's randomness that is promised never to change, so every machine makes the same data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from palate.data.catalogue import Catalogue
from palate.data.interactions import CleaningReport, RawInteractions
from palate.models.arrays import BoolArray, Int64Array
from palate.simulation.datasets.demo_words import MOODS, STRANDS, Strand

NUM_USERS = 2000
FILMS_PER_STRAND = 35
_SAGA_PARTS = 3
_NUMERALS = ("", " II", " III")
_DECADES = range(1950, 2030, 10)
_YEARS = (2021, 2022, 2023, 2024)  # a viewer's four phases
_YEAR_SECONDS = 365 * 86_400
_FIRST_SECOND = 1_609_459_200  # 2021-01-01 UTC
_CIRCLES = 24
_NOISE_BITS = 12

# Utilities in thousandths of a nat.
_STRAND_PULL = (5600, 5000, 4400)  # first, second and third strand of a circle
_ERA_PULL = 550  # for each decade away from the circle's era
_MOOD_PULL = 700
_DIRECTOR_PULL = 1100
_SAGA_PULL = 1900  # a part of a saga whose other part was seen
_NEW_PULL = 800
_OWN_PULL = 300  # none, once or twice, for each viewer and director: what is nobody else's taste
_POPULARITY_SLOPE = 1100


class _Dice:
    """Integers from PCG64's raw stream."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def below(self, bound: int, *shape: int) -> Int64Array:
        """Integers 0..bound-1, int64 [*shape]; the bias is at most bound / 2**32."""
        raw = self._source.random_raw(math.prod(shape))
        return (((raw >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64).reshape(shape)

    def shuffled(self, count: int) -> Int64Array:
        """Return a permutation of 0..count-1, int64 [count]."""
        return np.argsort(self.below(2**31, count), kind="stable")


@dataclass(frozen=True)
class _Films:
    """The catalogue, and what viewers respond to; int64 [num_items] each."""

    catalogue: Catalogue
    director: Int64Array
    era_mood: Int64Array
    saga: Int64Array  # -1: not part of a saga
    popularity: Int64Array


def demo_catalogue_and_rows(seed: int = 7) -> tuple[Catalogue, RawInteractions]:
    """Make the demo's films and what its viewers watched.

    Parameters
    ----------
    seed
        Of everything; the built-in dataset is the default.

    Returns
    -------
    tuple
        700 described films, and about 60,000 rows in order of time, as if read from a file.
    """
    dice = _Dice(seed)
    films = _make_films(dice)
    user, item, second = _watch(films, dice)
    rows = pl.DataFrame(
        {
            "line": np.arange(1, len(user) + 1),
            "user": [f"v{number + 1:04d}" for number in user.tolist()],
            "item": [films.catalogue.ids[at] for at in item.tolist()],
            "moment": second.astype(np.float64),
        }
    )
    return films.catalogue, RawInteractions(rows, True, True, CleaningReport(rows_read=len(rows)))


def _make_films(dice: _Dice) -> _Films:
    count = len(STRANDS) * FILMS_PER_STRAND
    titles: list[str] = []
    years: list[int] = []
    directors: list[int] = []
    sagas: list[int] = []
    for number, strand in enumerate(STRANDS):
        made = _titles_and_years(strand, dice)
        by = dice.below(len(strand.directors), FILMS_PER_STRAND)
        for at, (title, year, saga) in enumerate(made):
            titles.append(title)
            years.append(year)
            sagas.append(-1 if saga < 0 else number * len(strand.sagas) + saga)
            directors.append(number * len(strand.directors) + (saga if saga >= 0 else int(by[at])))
    strand_of = np.repeat(np.arange(len(STRANDS)), FILMS_PER_STRAND)
    mood = dice.below(len(MOODS), count)
    plot = dice.below(len(STRANDS[0].plots), count)
    texts = [
        f"A {MOODS[mood[at]]} {STRANDS[strand].label} by {STRANDS[strand].directors[director % 3]}: "
        f"{STRANDS[strand].plots[plot[at]]}."
        for at, (strand, director) in enumerate(zip(strand_of.tolist(), directors, strict=True))
    ]
    catalogue = Catalogue(
        ids=tuple(f"f{at + 1:03d}" for at in range(count)),
        titles=tuple(f"{title} ({year})" for title, year in zip(titles, years, strict=True)),
        genres=tuple(STRANDS[strand].genres for strand in strand_of.tolist()),
        years=np.array(years, dtype=np.int32),
        texts=tuple(texts),
    )
    decade = (np.array(years) - _DECADES[0]) // 10
    rank = dice.shuffled(count).tolist()
    return _Films(
        catalogue=catalogue,
        director=np.array(directors),
        era_mood=decade * len(MOODS) + mood,
        saga=np.array(sagas),
        popularity=np.array([round(-_POPULARITY_SLOPE * math.log(1 + position / 12)) for position in rank]),
    )


def _titles_and_years(strand: Strand, dice: _Dice) -> list[tuple[str, int, int]]:
    """Title, year and saga (-1: none) of a strand's films: first its sagas' parts, then single films."""
    first, last = strand.years
    span = last - first + 1
    made: list[tuple[str, int, int]] = []
    starts = dice.below(span - 12, len(strand.sagas)).tolist()
    gaps = (2 + dice.below(4, len(strand.sagas), _SAGA_PARTS)).tolist()
    for saga, name in enumerate(strand.sagas):
        year = first + starts[saga]
        for part in range(_SAGA_PARTS):
            made.append((name + _NUMERALS[part], year, saga))
            year += gaps[saga][part]
    pairs = [(adjective, noun) for adjective in strand.adjectives for noun in strand.nouns]
    named = [
        f"{adjective} {noun}" if (adjective.endswith(" of") or at % 2) else f"The {adjective} {noun}"
        for at, (adjective, noun) in enumerate(pairs)
    ]
    named += [f"{noun} {tail}" for noun in strand.nouns for tail in strand.tails]
    singles = FILMS_PER_STRAND - len(made)
    chosen = dice.shuffled(len(named))[:singles].tolist()
    newer = np.maximum(*dice.below(span, 2, singles)).tolist()  # the later of two draws: recent films are more
    return made + [(named[at], first + year, -1) for at, year in zip(chosen, newer, strict=True)]


def _watch(films: _Films, dice: _Dice) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Viewer, film and second of everything that was watched, oldest first, int64 [num_rows] each."""
    num_items = films.catalogue.num_items
    by_director, by_era_mood = _tastes(dice)
    total = _activity(dice)
    gumbel = np.array(
        [round(-1000 * math.log(-math.log((k + 0.5) / 2**_NOISE_BITS))) for k in range(2**_NOISE_BITS)], dtype=np.int64
    )
    year = films.catalogue.years.astype(np.int64)
    seen = np.zeros((NUM_USERS, num_items), dtype=bool)
    users, items, seconds = [], [], []
    for phase, now in enumerate(_YEARS):
        wanted = total * (phase + 1) // len(_YEARS) - total * phase // len(_YEARS)  # [num_users]
        novelty = np.where(year == now, _NEW_PULL, 0) + np.where(year == now - 1, _NEW_PULL // 2, 0)
        utility = (
            by_director[phase][:, films.director] + by_era_mood[phase][:, films.era_mood]
        )  # [num_users, num_items]
        utility += (films.popularity + novelty)[None, :]
        utility += np.where(_saga_begun(films, seen), _SAGA_PULL, 0)
        utility += gumbel[dice.below(2**_NOISE_BITS, NUM_USERS, num_items)]
        utility[seen | (year > now)[None, :]] = -(10**9)
        # The item rides in the low digits, so that no two keys are equal and any sort gives the same order.
        best = np.sort(-utility * 1024 + np.arange(num_items)[None, :], axis=1)[:, : wanted.max()] & 1023
        viewer, place = np.nonzero(np.arange(wanted.max())[None, :] < wanted[:, None])
        film = best[viewer, place]
        seen[viewer, film] = True
        users.append(viewer)
        items.append(film)
        seconds.append(_FIRST_SECOND + phase * _YEAR_SECONDS + dice.below(_YEAR_SECONDS, len(viewer)))
    user, item, second = np.concatenate(users), np.concatenate(items), np.concatenate(seconds)
    order = np.lexsort((item, user, second))
    return user[order], item[order], second[order]


def _tastes(dice: _Dice) -> tuple[list[Int64Array], list[Int64Array]]:
    """Pull of each director, and of each decade and mood, on each viewer in each phase.

    Returns
    -------
    tuple
        For each phase int64 [num_users, num_directors] and int64 [num_users, num_decades * num_moods].
    """
    directors_each = len(STRANDS[0].directors)
    circle_strand = np.zeros((_CIRCLES, len(STRANDS)), dtype=np.int64)
    for circle in range(_CIRCLES):
        circle_strand[circle, dice.shuffled(len(STRANDS))[: len(_STRAND_PULL)]] = _STRAND_PULL
    circle_director = np.repeat(circle_strand, directors_each, axis=1)  # [circles, directors]
    # In each circle one director of each strand is the one to follow.
    followed = dice.below(directors_each, _CIRCLES, len(STRANDS))
    circle_director += _DIRECTOR_PULL * np.eye(directors_each, dtype=np.int64)[followed].reshape(_CIRCLES, -1)
    decades, moods = len(_DECADES), len(MOODS)
    circle_decade = 2 + dice.below(decades - 2, _CIRCLES)
    circle_era = -_ERA_PULL * np.abs(np.arange(decades)[None, :] - circle_decade[:, None])
    circle_mood = _MOOD_PULL * np.eye(moods, dtype=np.int64)[dice.below(moods, _CIRCLES)]
    circle_era_mood = (circle_era[:, :, None] + circle_mood[:, None, :]).reshape(_CIRCLES, -1)

    main = dice.below(_CIRCLES, NUM_USERS)
    # The circle that a viewer drifts to is one of three near ones, so that drift too is something to learn.
    later = (main + 1 + dice.below(3, NUM_USERS)) % _CIRCLES
    own = _OWN_PULL * dice.below(3, NUM_USERS, circle_director.shape[1])
    by_director, by_era_mood = [], []
    steps = 2 * (len(_YEARS) - 1)
    for phase in range(len(_YEARS)):
        by_director.append(((steps - phase) * circle_director[main] + phase * circle_director[later]) // steps + own)
        by_era_mood.append(((steps - phase) * circle_era_mood[main] + phase * circle_era_mood[later]) // steps)
    return by_director, by_era_mood


def _activity(dice: _Dice) -> Int64Array:
    """Films watched by each viewer: a power law from 14 to 200, int64 [num_users]."""
    table = [min(200, round(20 * ((k + 0.5) / 4096) ** -0.45 - 6)) for k in range(4096)]
    return np.array(table)[dice.below(4096, NUM_USERS)]


def _saga_begun(films: _Films, seen: BoolArray) -> BoolArray:
    """Whether a viewer has seen another part of a film's saga, bool [num_users, num_items]."""
    begun = np.zeros_like(seen)
    parts = np.flatnonzero(films.saga >= 0).reshape(-1, _SAGA_PARTS)  # [sagas, parts], as the films are made
    begun[:, parts.ravel()] = np.repeat(seen[:, parts].any(axis=2), _SAGA_PARTS, axis=1)
    return begun
