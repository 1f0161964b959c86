"""One open device behind the page: one request at a time, and the recommender kept in memory between them.

Everything is read from the vault anew for each request, so that what the agent of rounds or a command did in the
meantime shows; the taste is fitted again only if something was told since, the table only if a new one came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.limit_fields import as_text, changes_in, from_text
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.status_text import left_words
from palate.client.owner.device import OwnerDevice, Said
from palate.client.owner.forgetting import forget_device
from palate.client.recommending.facets import in_words
from palate.client.recommending.preferences import Setting
from palate.client.vault import Tombstone, Vault
from palate.client.vault.errors import Forgotten, NoVault
from palate.errors import ConfigError, PalateError, RunError

SettingWord = Literal["pin", "mute", "release"]

_SAID = {
    "had": "Added {} to your history.",
    "like": "You like {}. The list has changed accordingly.",
    "dislike": "You do not like {}. The list has changed accordingly.",
    "hide": "{} is not shown any more.",
    "forget": "Everything you said about {} is forgotten.",
}
_SET = {"pin": "There will be more of {}.", "mute": "There will be less of {}.", "release": "{} is as it was."}


@dataclass(frozen=True)
class Notice:
    """What is said at the head of the next page.

    Attributes
    ----------
    text
        A sentence.
    can_undo
        Whether a button takes it back.
    """

    text: str
    can_undo: bool = False


@dataclass
class DeviceSession:
    """The device of one run of the page.

    Attributes
    ----------
    device
        Open; nobody but `using` touches it.
    forgotten
        Whether the owner had everything forgotten: there is nothing to use any more.
    """

    device: OwnerDevice
    forgotten: bool = False
    _notice: Notice | None = None
    _next: str = "a new one begins with palate client init"
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @contextmanager
    def using(self) -> Iterator[OwnerDevice]:
        """Have the device for oneself; raises RunError once it is forgotten."""
        with self._lock:
            if self.forgotten:
                raise RunError("this device is forgotten", hint=self._next)
            yield self.device

    def take_notice(self) -> Notice | None:
        """Return what is to be said, once."""
        with self._lock:
            notice, self._notice = self._notice, None
            return notice

    def say(self, said: str, item: str) -> None:
        """Keep feedback.

        Parameters
        ----------
        said
            One of `Said`.
        item
            Key of an item of the catalogue, or of one that the owner said something about before.

        Raises
        ------
        ConfigError
            If either is unknown.
        VaultError
            If it cannot be kept.
        """
        if said not in get_args(Said):
            raise ConfigError(f"feedback {said[:40]!r} is unknown", hint=f"it is one of {', '.join(get_args(Said))}")
        with self.using() as device:
            row = device.catalogue.rows.get(item)
            if row is None and (said != "forget" or not _spoken_about(device, item)):
                raise ConfigError("the catalogue does not list this item", hint="look it up on the search page")
            title = device.title(item)
            changed = device.say(cast("Said", said), item)
            text = _SAID[said].format(f"\N{LEFT DOUBLE QUOTATION MARK}{title}\N{RIGHT DOUBLE QUOTATION MARK}")
            self._notice = Notice(text, can_undo=True) if changed else Notice("That is how it was already.")

    def set_facet(self, facet: str, setting: str) -> None:
        """Pin, mute or release a facet; raises ConfigError if there is no such facet or setting."""
        if setting not in get_args(SettingWord):
            raise ConfigError(f"the setting {setting[:40]!r} is unknown", hint="it is one of pin, mute, release")
        with self.using() as device:
            if facet not in device.settings():
                device.recommender.facets.of(facet)
            changed = device.set_facet(facet, None if setting == "release" else cast("Setting", setting))
            words = in_words(facet)
            text = _SET[setting].format(words)
            self._notice = Notice(text[:1].upper() + text[1:], can_undo=True) if changed else None

    def limits(self) -> dict[str, str]:
        """Return what the owner allows, as text by field; raises ConfigError if the device belongs to no fleet."""
        with self.using() as device:
            return as_text(FleetProfile.require(device.vault).limits)

    def set_limits(self, texts: Mapping[str, str], shown: str) -> None:
        """Change the limits, as `palate client limits` does.

        Parameters
        ----------
        texts
            What the owner wrote, by field; fields that are not there stay as they are.
        shown
            `mark_of` the limits that the owner saw.

        Raises
        ------
        ConfigError, PrivacyError
            If a text is no number, a limit is out of range, or the device belongs to no fleet.
        RunError
            If its agent takes part in rounds just now, or the limits are not those that were shown.
        """
        with self.using() as device:
            before = self.limits()
            if shown != mark_of(before):
                raise RunError("another program changed your limits meanwhile", hint="look at them, then change them")
            written = {name: text for name, text in texts.items() if text.strip() != before.get(name)}
            changes = changes_in(from_text(written))
            if not changes:
                self._notice = Notice("Your limits are as they were.")
                return
            enrolling.change_limits(device.folder, **changes)
            self._notice = Notice("Your limits are changed; every round from now on is held against them.")

    def leave(self) -> None:
        """Leave the fleet, as `palate client leave` does; raises as `enrolling.leave`."""
        with self.using() as device:
            text = left_words(enrolling.leave(device.folder))
            self._notice = Notice(f"{text[:1].upper()}{text[1:]}.")

    def undo(self) -> None:
        """Take back what the owner did last."""
        with self.using() as device:
            done = device.undo()
            self._notice = Notice("Taken back." if done else "There is nothing left to take back.")

    def forget(self) -> Tombstone:
        """Destroy the device, and say what it had spent.

        Raises
        ------
        RunError
            If its agent takes part in rounds just now, and nothing has happened then; or where something cut it off.
        PalateError, PrivacyError
            If something is wrong with the device before anything was destroyed.
        """
        with self.using() as device:
            with device.folder.locked():  # ask before closing: the page goes on where an agent still runs
                pass
            device.vault.close()
            try:
                stone = forget_device(device.folder)
            except (PalateError, OSError) as error:
                self._go_on(device.folder, error)
                raise
            self.forgotten = True
            return stone

    def _go_on(self, folder: DeviceFolder, error: PalateError | OSError) -> None:
        """Open the device again where forgetting it did not begin; raises RunError where something cut it off."""
        why = f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else error.message
        try:
            self.device = OwnerDevice(folder, Vault.open(folder.vault))
        except (Forgotten, NoVault):
            self.forgotten, self._next = True, "what is left goes with: palate client forget --yes"
            raise RunError(f"the keys are destroyed, but not everything else: {why}", hint=self._next) from error
        if isinstance(error, OSError):
            raise RunError(f"this device cannot be forgotten: {why}", hint="mend that, then forget it again") from error


def mark_of(limits: Mapping[str, str]) -> str:
    """Name limits as they were shown, for a form to say what it was about."""
    return " ".join(limits.values())


def _spoken_about(device: OwnerDevice, item: str) -> bool:
    return item in device.marks() or any(entry.item == item for _, entry in device.history.in_order())
