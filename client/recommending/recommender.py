"""Lists for the owner of a device, offline: everything that a page or a command asks of the models, in one place.

A `Recommender` is made once per item table and knows nobody. `person` fits one person in closed form, in milliseconds,
so that feedback counts in the very next list. It needs NumPy only: PyTorch takes longer to load than a list takes.

What recommends is the copy of `fitting_of`: the closed form, fitted to the whole history with the half-life for
recommending, and on top the device's own trained head where the run trains one without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from palate.client.recommending import facets as names
from palate.client.recommending.answers import Answer, Recommendation
from palate.client.recommending.confidence import Track, confidence, track_record
from palate.client.recommending.explaining import explain, reason
from palate.client.recommending.facets import Facets, facets_of
from palate.client.recommending.preferences import Preferences
from palate.client.recommending.requests import Request
from palate.client.recommending.reranking import pool_size, rerank
from palate.client.recommending.taste import Nudge, NudgeKind, Space, Taste, contrast, fit, space_of
from palate.data.catalogue import Catalogue
from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float32Array, Int64Array, IntegerArray
from palate.models.fitting import Fitting
from palate.models.lists import best_items
from palate.models.new_items import introduce
from palate.models.scores.base import Head, ResidualHead
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable

if TYPE_CHECKING:
    from palate.client.recommending.portrait import Portrait
    from palate.client.wishes.reader import RequestReader, TextEncoder
    from palate.data.title_index import TitleIndex

COUNT = 10
"""Length of a list where nothing is said."""

# Steps of nudges, in units of the person's reach: 1 lifts the mean item to the top of the list.
PIN, MUTE = 0.5, -1.0
GENRE, MORE, LESS = 0.25, 0.75, -0.75
TITLE, UNLIKE = 4.0, -3.0  # the title itself is lifted so far; what is like it, by its likeness

WELL_KNOWN = 0.8
"""Share of the catalogue that a well-known item is more popular than."""


class Recommender:
    """One item table, ready to recommend from.

    Parameters
    ----------
    table
        The released table.
    catalogue
        Public facts about its items.
    column_names
        Names of the table's fixed columns, [fixed_dim].
    fitting
        What a person's copy is fitted with, from the parameters of the run that made the table.
    head
        The device's trained head as arrays by name, None for a fresh one; only a head on top of the closed form counts.
    new
        Rows of items that were not there when the table was learned, int [m].
    encoder
        Compares unknown words of a request with genres; it is called only when there are some.
    table_hash
        Content hash of the table, to show with lists; empty without a learned table.
    notes
        Notes about the table, to show with its lists.

    Raises
    ------
    ConfigError
        If table, catalogue and names do not fit together, or all items are new.
    """

    def __init__(
        self,
        table: ItemTable,
        catalogue: Catalogue,
        column_names: Sequence[str],
        fitting: Fitting,
        *,
        head: Head | None = None,
        new: IntegerArray | Sequence[int] = (),
        encoder: TextEncoder | None = None,
        table_hash: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        if table.num_items != catalogue.num_items or table.fixed_dim != len(column_names):
            raise ConfigError(
                f"the table has {table.num_items} items and {table.fixed_dim} named columns, "
                f"the catalogue {catalogue.num_items} items, and {len(column_names)} names were given",
                hint="use the catalogue that came with the table",
            )
        self.catalogue = catalogue
        self.table_hash = table_hash
        self.notes = notes
        self.new = np.zeros(table.num_items, dtype=np.bool_)
        self.new[np.asarray(new, dtype=np.int64)] = True
        if self.new.any():
            if self.new.all():
                raise ConfigError(
                    f"all {table.num_items} items are new, at least one must have been learned",
                    hint="wait for a table that was learned with some of them",
                )
            table = introduce(table, np.flatnonzero(self.new))
        self.fitting = fitting  # of the linear part; a trained head is added by itself
        intercept = SCORE_MODELS[fitting.closed_form].intercept
        popularity = column_names.index(names.POPULARITY) if names.POPULARITY in column_names else None
        self.space: Space = space_of(table.rows, fitting, popularity=popularity, intercept=intercept)
        self.groups = names.column_groups(column_names, table.dim, intercept=intercept)
        self.content = [at for at in range(table.fixed_dim) if at != popularity]
        self.learned = list(range(table.fixed_dim, table.fixed_dim + table.dim))
        model = SCORE_MODELS[fitting.model]
        adds = head is not None and fitting.objective == "whole" and model.residual_head
        self.head = ResidualHead(model, head, table.rows.shape[1]) if head is not None and adds else None
        self._encoder = encoder

    @cached_property
    def facets(self) -> Facets:
        """Genres and decades of the catalogue."""
        return facets_of(self.catalogue)

    @cached_property
    def titles(self) -> TitleIndex:
        """Titles of the catalogue, the popular ones first among equals."""
        return self.catalogue.title_index.ranked_by(self.popularity)

    @cached_property
    def popularity(self) -> Float32Array | None:
        """How popular each item is, float32 [num_items]; None where the table does not tell."""
        column = None if self.space.popularity is None else self.space.rows[:, self.space.popularity]
        return None if column is None or np.ptp(column) == 0 else column

    @cached_property
    def reader(self) -> RequestReader:
        """Reads requests about this catalogue."""
        from palate.client.wishes.reader import RequestReader  # with the words of five languages

        return RequestReader(self.facets, self.titles, self._encoder)

    @cached_property
    def head_scores(self) -> Float32Array | None:
        """What the head adds to each item's score, float32 [num_items]; feedback does not change it."""
        return None if self.head is None else self.head.scores(self.space.rows)

    def person(self, preferences: Preferences) -> Person:
        """Fit a person; call it again after every feedback.

        Raises
        ------
        ConfigError
            If a preference is about an item that the table does not have.
        """
        known = preferences.known
        if len(known) and known[-1] >= self.space.num_items:
            raise ConfigError(
                f"feedback is about item {known[-1]}, the table has {self.space.num_items}",
                hint="use rows of this table's catalogue",
            )
        return Person(self, preferences)

    def open_items(self, request: Request) -> BoolArray:
        """Items that a request allows, bool [num_items].

        Raises
        ------
        ConfigError
            If it names a facet that the catalogue does not have.
        """
        allowed = np.ones(self.space.num_items, dtype=np.bool_)
        facets = self.facets
        any_of = (request.genres, *((name,) for name in request.every), *(mood.of for mood in request.moods))
        wanted = [facets.mask(names) for names in any_of if names]
        wanted += [facets.mentioning(words) for words in request.mentions]
        if request.first_year is not None or request.last_year is not None:
            wanted.append(facets.between(request.first_year, request.last_year))
        if request.shortest is not None or request.longest is not None:
            wanted.append(facets.lasting(request.shortest, request.longest))
        refused = [facets.mask(names) for names in (request.without, *(mood.without for mood in request.moods))]
        refused += [facets.between(first, last) for first, last in request.without_years]
        refused += [facets.lasting(first, last) for first, last in request.without_minutes]
        refused += [facets.mentioning(words) for words in request.without_mentions]
        for mask in wanted:
            allowed &= mask
        for mask in refused:
            allowed &= ~mask
        if request.new_only:
            allowed &= self.newest
        if request.popularity and self.popularity is not None:
            known = self.popularity > np.quantile(self.popularity, WELL_KNOWN)
            allowed &= known if request.popularity > 0 else ~known
        allowed[list({*request.titles, *request.unlike, *request.without_titles})] = False
        return allowed

    @cached_property
    def newest(self) -> BoolArray:
        """What counts as new, bool [num_items]: items that the table did not know, or else the last two years."""
        if self.new.any():
            return self.new
        years = self.facets.years
        return np.asarray(self.facets.between(int(years.max(initial=1)) - 1, None))

    def nudges(self, request: Request) -> list[Nudge]:
        """Turn what a request asks for more or less of into nudges."""

        def nudge(items: IntegerArray, step: float, label: str) -> Nudge:
            return Nudge("asked" if step > 0 else "refused", label, contrast(self.space, items), step)

        of, named, titles = self.facets.of, names.in_words, self.catalogue.titles
        genres = (*request.genres, *request.every)
        found = [nudge(of(name), GENRE, named(name)) for name in genres if name not in request.more]
        found += [
            nudge(np.flatnonzero(self.facets.mask(mood.of)), GENRE, f"something {mood.name}")
            for mood in request.moods
            if mood.of
        ]
        found += [nudge(of(name), MORE, f"more of {named(name)}") for name in request.more]
        found += [nudge(of(name), LESS, f"less of {named(name)}") for name in request.less]
        found += [nudge(np.array([item]), TITLE, f"something like {titles[item]}") for item in request.titles]
        found += [nudge(np.array([item]), UNLIKE, f"nothing like {titles[item]}") for item in request.unlike]
        return found


class Person:
    """One person's fitted taste. Nothing of it is ever printed or sent."""

    def __init__(self, recommender: Recommender, preferences: Preferences) -> None:
        self._of = recommender
        self.preferences = preferences
        self.taste: Taste = self._fit([])

    def __repr__(self) -> str:
        return "Person(<on this device only>)"

    @cached_property
    def scores(self) -> Float32Array:
        """Scores of the whole catalogue, float32 [num_items]."""
        return self._scores(self.taste)

    @cached_property
    def _track(self) -> Track | None:
        """How well lists have known the person, without what is asked for now."""
        linear = self.scores if self._of.head is None else self.taste.scores(self._of.space.rows)
        unknown = np.ones(len(linear), dtype=np.bool_)
        unknown[self.preferences.known] = False
        best = best_items(linear, unknown, COUNT)
        return track_record(self._of.space, self.taste, float(linear[best[-1]])) if len(best) else None

    @cached_property
    def portrait(self) -> Portrait:
        """The taste in words and weights."""
        from palate.client.recommending.portrait import portray

        catalogue = self._of.catalogue
        texts = catalogue.texts if any(catalogue.texts) else ()
        return portray(self._of.space, self.taste, self.preferences, self._of.facets, texts)

    def recommend(self, request: Request | None = None) -> Answer:
        """Recommend what was not had, disliked or hidden.

        Parameters
        ----------
        request
            What is asked for; None is a plain list of `COUNT`.

        Returns
        -------
        Answer
            Fewer items than asked for where fewer are left; its notes say so.

        Raises
        ------
        ConfigError
            If the request names what the catalogue does not have, or a length or dial that cannot be.
        """
        request = request or Request()
        count = COUNT if request.count is None else request.count
        dial = request.diversity or 0.0
        nudges = self._of.nudges(request) if request.asks else []
        taste = self._fit(nudges) if nudges else self.taste
        scores = self._scores(taste) if nudges else self.scores
        allowed = self._of.open_items(request)
        allowed[self.preferences.known] = False
        best = best_items(scores, allowed, max(pool_size(count), count) if dial > 0 else count)
        if dial > 0 and len(best):
            best = best[rerank(scores[best], self._features(best), count, dial)]
        return self._answer(request, taste, best, count)

    def _fit(self, nudges: list[Nudge]) -> Taste:
        space, own = self._of.space, list[Nudge]()
        kept: list[tuple[NudgeKind, tuple[str, ...], float]] = [
            ("pinned", self.preferences.pinned, PIN),
            ("muted", self.preferences.muted, MUTE),
        ]
        for kind, settings, step in kept:
            for name in settings:
                # a later catalogue may lack a facet: the owner's setting is kept but unused
                if name in self._of.facets.items:
                    label = f"{'more' if step > 0 else 'less'} of {names.in_words(name)} ({kind})"
                    own.append(Nudge(kind, label, contrast(space, self._of.facets.items[name]), step))
        return fit(space, self.preferences, self._of.fitting, [*own, *nudges])

    def _scores(self, taste: Taste) -> Float32Array:
        linear = taste.scores(self._of.space.rows)
        head = self._of.head_scores
        return linear if head is None else linear + head

    def _features(self, items: Int64Array) -> Float32Array:
        """Take what makes items alike: their content, or what was learned of them where nothing is known."""
        rows = self._of.space.rows[items]
        content = rows[:, self._of.content]
        return content if content.any() else rows[:, self._of.learned]

    def _answer(self, request: Request, taste: Taste, best: Int64Array, count: int) -> Answer:
        of, catalogue = self._of, self._of.catalogue
        explained = explain(best, of.space, taste, of.groups, of.head)
        sure = confidence(best, of.space, taste, self._track) if len(best) else []
        lines = []
        for rank, (explanation, how_sure) in enumerate(zip(explained, sure, strict=True), start=1):
            item = explanation.item
            lines.append(
                Recommendation(
                    rank=rank,
                    item=item,
                    id=catalogue.ids[item],
                    title=catalogue.titles[item],
                    year=int(catalogue.years[item]) or None,
                    genres=catalogue.genres[item],
                    is_new=bool(of.new[item]),
                    score=explanation.score,
                    why=reason(explanation, names.facets_of_item(item, catalogue), catalogue),
                    confidence=how_sure,
                    explanation=explanation,
                )
            )
        notes = []
        if len(lines) < count:
            notes.append(f"{len(lines)} of {count}: nothing else is left that fits what was asked")
        if taste.own == 0:
            first = "" if of.popularity is None else ": what is popular comes first"
            notes.append(f"nothing is known of your taste yet{first}")
        if request.popularity and of.popularity is None:
            notes.append("nothing here says what is well known: that wish changes nothing")
            request = replace(request, popularity=0)
        return Answer(tuple(lines), request, request.sentence(catalogue), tuple(notes))
