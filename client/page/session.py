"""One open device behind the page: one request at a time, and the recommender kept in memory between them.

Everything is read from the vault anew for each request, so that what the agent of rounds or a command did in the
meantime shows; the taste is fitted again only if something was told since, the table only if a new one came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from palate.client.fleet.folder import DeviceFolder
from palate.client.owner.device import OwnerDevice
from palate.client.owner.forgetting import forget_device
from palate.client.vault import Tombstone, Vault
from palate.client.vault.errors import Forgotten, NoVault
from palate.errors import PalateError, RunError


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

    def notify(self, text: str, *, can_undo: bool = False) -> None:
        """Have something said at the head of the next page."""
        self._notice = Notice(text, can_undo)

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
