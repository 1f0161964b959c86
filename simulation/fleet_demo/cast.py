"""Who plays in the demonstration: people of the embedded demo data, each with a device of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.data.catalogue import Catalogue
from palate.errors import ConfigError
from palate.simulation.datasets.presets import load


@dataclass(frozen=True)
class Person:
    """One person of the demonstration.

    Attributes
    ----------
    name
        Name in the demo data.
    items
        Keys of what this person has seen, oldest first.
    """

    name: str
    items: tuple[str, ...]


def choose(devices: int, seed: int) -> tuple[Catalogue, tuple[Person, ...]]:
    """Draw people of the demo data, and return them with the public catalogue.

    Raises
    ------
    ConfigError
        If the demo data has fewer people.
    """
    data = load("demo")
    if devices > data.num_users:
        raise ConfigError(f"{devices} devices, but the demo data has {data.num_users} people", hint="ask for fewer")
    drawn = np.sort(np.random.default_rng(seed).choice(data.num_users, size=devices, replace=False))
    ids = data.catalogue.ids
    people = tuple(
        Person(data.users[user], tuple(ids[item] for item in data.item[data.user == user])) for user in drawn
    )
    return data.catalogue, people
