"""Registries: names of Palate's own parts, and of those that other packages add by entry points.

A built-in part is one line, `name: "module:attribute"`. Another package adds its own in its pyproject.toml::

    [project.entry-points."palate.models"]
    mine = "my_package.scores:Mine"

Nothing is imported before it is asked for by name, and installed packages are searched only for names that are not
built in. A package may not give a built-in name a new meaning.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from palate.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class Registry(Generic[T]):
    """All parts of one kind, by name: ``registry[name]`` loads one, iteration gives all names.

    Parameters
    ----------
    kind
        What one of them is called in messages: "model".
    group
        Entry point group in which other packages add theirs: "palate.models".
    built_in
        Palate's own, as "module:attribute" by name, in the order in which they are listed.
    accept
        Returns a loaded object as a part of this kind; raises TypeError, saying what it should be, if it is none.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str], accept: Callable[[object], T]) -> None:
        self.kind = kind
        self.group = group
        self.built_in = dict(built_in)
        self._accept = accept
        self._parts: dict[str, T] = {}

    @cached_property
    def plugins(self) -> dict[str, EntryPoint]:
        """Entry points of other packages by name, in alphabetical order.

        Raises
        ------
        ConfigError
            If a package uses a built-in name, or two packages use the same one.
        """
        from importlib.metadata import entry_points  # slow to load, and often not needed

        found: dict[str, EntryPoint] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: entry.name):
            other = found.setdefault(entry.name, entry)
            if entry.name in self.built_in:
                raise ConfigError(
                    f"package {_package(entry)} adds a {self.kind} {entry.name!r}, which is the name of a built-in one",
                    hint=f"rename it in the package's entry points {self.group}, or uninstall the package",
                )
            if other.value != entry.value:
                raise ConfigError(
                    f"packages {_package(other)} and {_package(entry)} both add a {self.kind} {entry.name!r}",
                    hint="uninstall one of them",
                )
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """All names: the built-in ones in their order, then those of other packages."""
        return (*self.built_in, *self.plugins)

    def __getitem__(self, name: str) -> T:
        """Load a part by its name; each is loaded once.

        Raises
        ------
        ConfigError
            If the name is unknown, or the package that adds it is broken.
        """
        if name not in self._parts:
            if name in self.built_in:
                module, _, attribute = self.built_in[name].partition(":")
                self._parts[name] = self._accept(getattr(importlib.import_module(module), attribute))
            elif name in self.plugins:
                self._parts[name] = self._load(self.plugins[name])
            else:
                raise self.unknown(name)
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self.built_in or name in self.plugins

    def items(self) -> Iterator[tuple[str, T]]:
        """Load all parts, and give them with their names."""
        return ((name, self[name]) for name in self.names)

    def resolve(self, name_or_object: str | object) -> T:
        """Return the part itself, whether it is given by name or as an object.

        Raises
        ------
        ConfigError
            As for looking it up by name, or if the object is not a part of this kind.
        """
        if isinstance(name_or_object, str):
            return self[name_or_object]
        try:
            return self._accept(name_or_object)
        except TypeError as error:
            raise ConfigError(
                f"a {self.kind} was expected, got {error}",
                hint=f"pass a name or an object; docs/extending.md says what a {self.kind} is",
            ) from None

    def name_of(self, name_or_object: str | object) -> str:
        """Return a name under which the part is found in this process, for settings, which hold only names.

        An object that is passed instead of a name is kept under its own name until the process ends; a later object of
        that name takes its place.

        Raises
        ------
        ConfigError
            If the object is not a part of this kind, has no name, or has that of another part that is installed.
        """
        if isinstance(name_or_object, str):
            return name_or_object
        part = self.resolve(name_or_object)
        name = getattr(part, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"the {self.kind}'s name is {name!r}, not 1 to 32 letters, digits, and _ . -", hint='say name = "mine"'
            )
        if name not in self.built_in and name not in self.plugins:
            self._parts[name] = part
        elif self[name] is not part:
            raise ConfigError(f"there is a {self.kind} {name!r} already", hint="give yours another name")
        return name

    def unknown(self, name: str) -> ConfigError:
        """Make the error for a name that is not known; it suggests the closest one."""
        close = difflib.get_close_matches(name, self.names, n=1)
        suggestion = f"did you mean {close[0]!r}? " if close else ""
        return ConfigError(
            f"unknown {self.kind} {name!r}", hint=f"{suggestion}choose one of {', '.join(sorted(self.names))}"
        )

    def _load(self, entry: EntryPoint) -> T:
        """Load what another package adds; an error in it is reported with the package's name."""
        try:
            part = self._accept(entry.load())
            name = getattr(part, "name", None)
            if name != entry.name:
                raise ValueError(f"its name is {name!r}")
        except Exception as error:
            raise ConfigError(
                f"{self.kind} {entry.name!r} of package {_package(entry)} cannot be used: "
                f"{type(error).__name__}: {error}",
                hint=f"its entry point is {entry.value}; update or uninstall {_package(entry)}",
            ) from error
        return part


def instance_of(kind: type[T]) -> Callable[[object], T]:
    """Accept the objects of a class."""

    def accept(value: object) -> T:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r}, not a {kind.__module__}.{kind.__name__}")
        return value

    return accept


def _package(entry: EntryPoint) -> str:
    """Return the name of the package that an entry point belongs to."""
    return entry.dist.name if entry.dist is not None else entry.module
