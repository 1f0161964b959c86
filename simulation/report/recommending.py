"""What a run recommends to one person, with reasons, and what that person had recently.

The list is made by the code of a device (`palate.client.recommending`), from what that person's device would hold.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palate.client.recommending.answers import Answer, Recommendation
from palate.client.recommending.preferences import read_preferences
from palate.client.recommending.recommender import Recommender
from palate.client.recommending.requests import Request
from palate.client.vault.history import Interaction
from palate.data.catalogue import Catalogue
from palate.data.interactions import Interactions
from palate.errors import DataError
from palate.models.scores.registry import fitting_of
from palate.simulation.report.rendering import cell
from palate.simulation.report.tables import Cell, Grid, Row, text_grid

if TYPE_CHECKING:
    from palate.simulation.finished import Finished

RECENT = 10
"""Newest items of the history that are shown."""

_EXAMPLES = 3


@dataclass(frozen=True)
class Item:
    """An item of the catalogue; year is None where it is unknown."""

    item: str
    title: str
    year: int | None
    genres: list[str]

    @property
    def described(self) -> str:
        """Title with its year, unless the title contains it."""
        return f"{self.title} ({self.year})" if self.year and f"({self.year})" not in self.title else self.title


@dataclass(frozen=True)
class Recommended:
    """A person's list.

    Attributes
    ----------
    user_id
        As in the data.
    num_items
        Length of the history that the model knows.
    recent
        Its newest items, oldest of them first.
    answer
        The list, as the person's device would make it.
    held_out
        Key of the test item: what the person really chose next, unknown to the model.
    catalogue
        That was recommended from.
    """

    user_id: str
    num_items: int
    recent: tuple[Item, ...]
    answer: Answer
    held_out: str
    catalogue: Catalogue

    @property
    def recommendations(self) -> tuple[Recommendation, ...]:
        """Best first; nothing of the history."""
        return self.answer.recommendations

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "user": self.user_id,
            "history": self.num_items,
            "recent": [vars(item) for item in self.recent],
            "recommendations": [
                {**line.to_dict(self.catalogue), "held_out": line.id == self.held_out} for line in self.recommendations
            ],
        }

    def __len__(self) -> int:
        """Count the recommendations."""
        return len(self.recommendations)

    def __iter__(self) -> Iterator[Recommendation]:
        """Go through the recommendations, best first."""
        return iter(self.recommendations)

    @property
    def grids(self) -> list[Grid]:
        """The list, with the item that the person really chose next marked, and what they had recently."""
        rows = tuple(
            Row(
                str(line.rank),
                (
                    Cell(Item(**self.catalogue.about(line.item)).described),
                    Cell(", ".join(line.genres)),
                    Cell(line.why),
                    Cell(line.confidence.level),
                    Cell("really chosen next" if line.id == self.held_out else ""),
                ),
                own=line.id == self.held_out,
            )
            for line in self.recommendations
        )
        lately = (("", item.described, ", ".join(item.genres)) for item in self.recent)
        return [
            Grid("Recommended, best first", ("", "Title", "Genres", "Why", "Confidence", ""), rows),
            text_grid(f"Latest of the {self.num_items} in the history", ("", "Title", "Genres"), lately),
        ]

    def _repr_html_(self) -> str:
        """Show the list in a notebook, with the newest items of the history."""
        return cell(f"For {self.user_id}", self.grids)


def recommend_to(finished: Finished, user_id: str, num_recommendations: int = 10) -> Recommended:
    """Recommend to one person of the run's data.

    Parameters
    ----------
    finished
        An opened run.
    user_id
        The person's id in the data.
    num_recommendations
        Length of the list, at least 1; shorter where the catalogue runs out.

    Raises
    ------
    DataError
        If the data has no such person.
    """
    interactions, catalogue = finished.interactions, finished.interactions.catalogue
    if user_id not in interactions.users:
        raise unknown_user(user_id, interactions)
    user = interactions.users.index(user_id)
    known = finished.split.full_train.of(user).tolist()
    recommender = Recommender(
        finished.table,
        catalogue,
        finished.column_names,
        fitting_of(finished.config.training),
        head=finished.trained_head(user),
    )
    had = (Interaction(item=catalogue.ids[item], source="import") for item in known)
    preferences, _ = read_preferences(had, {}, {}, catalogue.rows)
    answer = recommender.person(preferences).recommend(Request(count=num_recommendations))
    return Recommended(
        user_id=user_id,
        num_items=len(known),
        recent=tuple(Item(**catalogue.about(item)) for item in known[-RECENT:]),
        answer=answer,
        held_out=catalogue.ids[int(finished.split.test.item[user])],
        catalogue=catalogue,
    )


def unknown_user(user_id: str, interactions: Interactions) -> DataError:
    """Say that the data has no such person, and who may have been meant."""
    near = difflib.get_close_matches(user_id, interactions.users, n=1)
    asked = f"did you mean {near[0]}? " if near else ""
    return DataError(
        f"{interactions.name} has no user {user_id!r}",
        hint=f"{asked}its users are called {', '.join(interactions.users[:_EXAMPLES])} and so on",
    )
