"""A device, open for its owner: what it recommends, the owner's feedback, and undo.

The history's own journal takes back steps; one thing that an owner does may take several of them, or change the profile
instead. So what was done is noted here, each with the state that it left behind: where that state is found again,
`undo` knows what to take back, and where something else came in between, as an import, that is taken back first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

from palate.client.fleet.folder import DeviceFolder
from palate.client.owner.opening import NothingToGoBy, Stamp, open_catalogue, open_recommender, stamp
from palate.client.recommending.facets import Facets, facets_of
from palate.client.recommending.preferences import Preferences, Setting, read_preferences, record
from palate.client.recommending.recommender import Person, Recommender
from palate.client.vault import PROFILE, Vault
from palate.client.vault.history import UNDO_STEPS, History, Interaction, Mark
from palate.client.vault.records import Record
from palate.data.catalogue import TITLE_PREFIX, Catalogue, printable
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.client.recommending.portrait import Portrait
    from palate.data.title_index import TitleIndex

Said = Literal["had", "like", "dislike", "hide", "forget"]

SETTINGS: Final = Record[dict[str, Setting]](PROFILE, "settings")
"""Facets that the owner pinned or muted, as "genre: Crime", in the order in which they were made."""
_ACTIONS: Final = Record[list[dict[str, Any]]](PROFILE, "actions")


@dataclass(frozen=True, kw_only=True)
class Entry(Interaction):
    """One line of the history, for its owner.

    Attributes
    ----------
    number
        The interaction's number.
    title
        The title; what was imported where the catalogue does not list the item.
    row
        In the table; None where the catalogue does not list it.
    """

    number: int
    title: str
    row: int | None


class OwnerDevice:
    """An open device; use `opened`. Several programs may have the same one open, the agent of rounds among them.

    Attributes
    ----------
    folder, vault
        What it has on disk.
    """

    def __init__(self, folder: DeviceFolder, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.vault = vault
        self.history = History(vault)
        self._clock = clock
        self._catalogue: tuple[Stamp, Catalogue] | None = None
        self._recommender: tuple[object, Recommender] | None = None
        self._person: tuple[object, Person] | None = None

    def __repr__(self) -> str:
        return "OwnerDevice(<sealed>)"

    @staticmethod
    @contextmanager
    def opened(folder: DeviceFolder) -> Iterator[OwnerDevice]:
        """Open a device's folder.

        Raises
        ------
        VaultError
            If there is no vault, or it cannot be opened.
        """
        with Vault.open(folder.vault) as vault:
            yield OwnerDevice(folder, vault)

    @property
    def recommender(self) -> Recommender:
        """The table of now: read again when a new one has come; raises as `open_recommender`."""
        now = stamp(self.folder)
        if self._recommender is None or self._recommender[0] != now:
            self._recommender = (now, open_recommender(self.folder, self.vault, self.catalogue))
            self._person = None
        return self._recommender[1]

    @property
    def catalogue(self) -> Catalogue:
        """Public facts about the items of now, none before a catalogue has come; raises as `open_catalogue`."""
        now = stamp(self.folder)
        if self._catalogue is None or self._catalogue[0] != now:
            self._catalogue = (now, open_catalogue(self.folder, self.vault))
        return self._catalogue[1]

    @property
    def titles(self) -> TitleIndex:
        """Titles of the catalogue, the popular ones first among equals where a table tells."""
        return self.catalogue.title_index if self._has_nothing_to_go_by() else self.recommender.titles

    @property
    def facets(self) -> Facets:
        """Genres and decades of the catalogue."""
        return facets_of(self.catalogue) if self._has_nothing_to_go_by() else self.recommender.facets

    def portrait(self) -> Portrait:
        """Return the owner's taste in words and weights; it has none before there is something to go by."""
        from palate.client.recommending.portrait import Portrait

        if self._has_nothing_to_go_by():
            return Portrait((), (), len({entry.item for _, entry in self.history.in_order()}))
        return self.person().portrait

    def _has_nothing_to_go_by(self) -> bool:
        try:
            return self.recommender is None
        except NothingToGoBy:
            return True

    def title(self, key: str) -> str:
        """Name an item as the catalogue does; else by the title that it was imported by, or by its key."""
        row = self.catalogue.rows.get(key)
        return titled(key) if row is None else self.catalogue.titles[row]

    def preferences(self) -> tuple[Preferences, int]:
        """Return the owner's preferences, in rows of the table, and how many items the catalogue does not list."""
        return read_preferences(*self._feedback(), self.catalogue.rows)

    def person(self) -> Person:
        """Return the owner's taste, fitted anew after any feedback, here or in another program."""
        recommender, state = self.recommender, self._feedback()
        if self._person is None or self._person[0] != state:
            preferences, _ = read_preferences(*state, recommender.catalogue.rows)
            self._person = (state, recommender.person(preferences))
        return self._person[1]

    def say(self, said: Said, item: str) -> bool:
        """Keep a piece of feedback about an item, named by its key; the next list heeds it.

        Returns
        -------
        bool
            Whether it changed anything.
        """
        with self.vault.transaction():
            steps = 0
            for key in self._same(item) if said == "forget" else (item,):
                steps += record(self.history, said, key, time=int(self._clock()))
            if steps:
                self._note({"steps": steps})
        return steps > 0

    def unlisted(self, title: str) -> str | None:
        """Return the key of what the history calls so and the catalogue does not list; None if there is no such."""
        for _, entry in self.history.in_order():
            known = entry.item in self.catalogue.rows
            if not known and title.casefold() in (entry.item.casefold(), titled(entry.item).casefold()):
                return entry.item
        return None

    def set_facet(self, facet: str, setting: Setting | None) -> bool:
        """Pin or mute a facet, or with None neither any more; returns whether it changed anything."""
        with self.vault.transaction():
            before = self._keep_setting(facet, setting)
            if before != setting:
                self._note({"facet": facet, "before": before})
        return before != setting

    def undo(self, count: int = 1) -> int:
        """Take back what the owner did last, latest first, and return how many of them there were to take back."""
        done = 0
        with self.vault.transaction():
            actions = self._actions()
            while done < count:
                if actions and actions[-1]["left"] == self._state():
                    action = actions[-1]
                    if "facet" in action:
                        self._keep_setting(action["facet"], action["before"])
                    elif not self.history.undo(action["steps"]):  # the journal keeps the first of them no more
                        break
                    actions.pop()
                elif not self.history.undo(1):
                    break
                done += 1
            if done:
                _ACTIONS.write(self.vault, actions)
        return done

    def entries(self) -> list[Entry]:
        """List the history, oldest first."""
        rows = self.catalogue.rows
        return [
            Entry(**vars(entry), number=number, title=self.title(entry.item), row=rows.get(entry.item))
            for number, entry in self.history.in_order()
        ]

    def settings(self) -> dict[str, Setting]:
        """Return what is pinned or muted, by facet."""
        return SETTINGS.read(self.vault) or {}

    def _keep_setting(self, facet: str, setting: Setting | None) -> Setting | None:
        """Pin or mute a facet, or with None neither any more, and return what it was; within a transaction."""
        settings = self.settings()
        before = settings.pop(facet, None)
        if setting is not None:
            settings[facet] = setting
        if before != setting:
            SETTINGS.write(self.vault, settings)
        return before

    def _same(self, item: str) -> list[str]:
        """Keys of the same item: an import may have named it by its title before there was a catalogue."""
        rows = self.catalogue.rows
        keys = dict.fromkeys([item, *(entry.item for _, entry in self.history.in_order()), *self.history.marks()])
        return [key for key in keys if key == item or (item in rows and rows.get(key) == rows[item])]

    def _feedback(self) -> tuple[tuple[Interaction, ...], dict[str, Mark], dict[str, Setting]]:
        return (
            tuple(entry for _, entry in self.history.in_order()),
            self.history.marks(),
            self.settings(),
        )

    def _state(self) -> str:
        """Hash all feedback as it is now, so that this state can be recognised; it never leaves the vault."""
        numbers = [number for number, _ in self.history.in_order()]
        feedback = [numbers, sorted(self.history.marks().items()), sorted(self.settings().items())]
        return sha256(json.dumps(feedback).encode()).hexdigest()[:32]

    def _note(self, action: dict[str, Any]) -> None:
        _ACTIONS.write(self.vault, [*self._actions(), {**action, "left": self._state()}][-UNDO_STEPS:])

    def _actions(self) -> list[dict[str, Any]]:
        return _ACTIONS.read(self.vault) or []


def titled_key(title: str) -> str:
    """Return the key of an item that no catalogue lists.

    Raises
    ------
    ConfigError
        If the title is blank.
    """
    if not title.strip():
        raise ConfigError("the title is blank", hint='say what it is called: palate client add "Heat (1995)"')
    return f"{TITLE_PREFIX}{printable(title.strip())}"


def titled(key: str) -> str:
    """Return what to call an item that the catalogue does not list: the title that it was imported by, or its key."""
    return key.removeprefix(TITLE_PREFIX)
