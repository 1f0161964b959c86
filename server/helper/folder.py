"""Where things lie in a helper's folder, who may use it, and how it is made, told of its leader, and opened.

    helper.toml      what the operator decides
    helper.card      for the leader's operator: palate server init --helper
    leader.card      from the leader's operator: palate helper trust
    keys/            signing key and TLS (0700, files 0600): back it up, offline
    ledger/          helper.sqlite: what was answered: back it up
    round-keys/      private halves of the open rounds' keys: never back it up
    anchor           the end of the ledger; helper.toml may name another medium

One process at a time uses a helper's folder: it holds a lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.privacy import files
from palate.privacy.ledger.errors import Rollback, Tampered
from palate.server.fleet.certificates import AUTHORITY_DAYS, KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.folder import held, is_held, make_key, read_key
from palate.server.helper.anchor import AnchorFile
from palate.server.helper.book import SqliteBook
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.helper.config import SUITES, HelperConfig, at_address, checked_config, load_config, to_toml
from palate.server.helper.secrets_folder import RoundSecrets
from palate.server.helper.service import HelperService, Progress


@dataclass(frozen=True)
class HelperFolder:
    """The folder of one helper."""

    root: Path

    @property
    def config(self) -> Path:
        """What the operator decides."""
        return self.root / "helper.toml"

    @property
    def card(self) -> Path:
        """What the leader's operator gets."""
        return self.root / "helper.card"

    @property
    def leader_card(self) -> Path:
        """What the leader's operator gave."""
        return self.root / "leader.card"

    @property
    def key(self) -> Path:
        """Ed25519 key that devices pin."""
        return self.root / "keys" / "helper.key"

    @property
    def tls(self) -> KeyFiles:
        """TLS key and certificate of the service."""
        return KeyFiles(self.root / "keys" / "tls", "server")

    @property
    def tls_root(self) -> KeyFiles:
        """What signed the service's certificate; the leader pins it."""
        return KeyFiles(self.root / "keys" / "tls", "authority")

    @property
    def ledger(self) -> Path:
        """What was answered."""
        return self.root / "ledger" / "helper.sqlite"

    @property
    def round_keys(self) -> Path:
        """Private halves of the keys of open rounds."""
        return self.root / "round-keys"

    def anchor(self, config: HelperConfig) -> AnchorFile:
        """Where the end of the ledger is kept; a path in helper.toml counts from this folder."""
        return AnchorFile(self.root / config.anchor, config.fleet, read_key(self.key))

    def load_config(self) -> HelperConfig:
        """Read helper.toml; raises ConfigError where this is no helper's folder."""
        if not self.config.exists():
            raise ConfigError(
                f"{self.root} is not the folder of a helper", hint="make one with palate helper init, or give --folder"
            )
        return load_config(self.config)

    def leader(self) -> LeaderCard:
        """Read whom this helper serves.

        Raises
        ------
        ConfigError
            If it was not told, or the card was changed.
        """
        if not self.leader_card.exists():
            raise ConfigError(
                "this helper does not know its leader yet", hint="palate helper trust leader.card, from its operator"
            )
        return LeaderCard.open(self.leader_card.read_bytes())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone.

        Raises
        ------
        RunError
            If another process uses it.
        """
        busy = RunError(
            f"{self.root}: another palate helper uses this folder",
            hint="stop it first; one that runs answers by itself",
        )
        with held(self._lock, busy):
            yield

    def is_locked(self) -> bool:
        """Whether a helper runs here."""
        return is_held(self._lock)

    @property
    def _lock(self) -> Path:
        return self.root / "helper.lock"


def make_helper(folder: HelperFolder, config: HelperConfig) -> HelperCard:
    """Make a helper's folder: keys, certificate, ledger, anchor and card.

    Raises
    ------
    ConfigError
        If there is a helper already, or the address is none.
    EnvironmentProblem
        If the folder or the anchor cannot be written.
    """
    if folder.config.exists() or folder.key.exists():
        raise ConfigError(f"{folder.root} holds a helper already", hint="choose another folder")
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"{folder.root}: {error.strerror}", hint="choose a folder you may write") from None
    anchor = folder.root / config.anchor
    if anchor.exists() or not anchor.parent.is_dir():
        raise ConfigError(
            f"the anchor cannot be {anchor}: it is there already, or its folder is not",
            hint="choose a new file, in a folder on another medium",
        )
    key = make_key(folder.key)
    make_authority(folder.tls_root.folder, name=f"{config.fleet} helper")
    RoundSecrets(folder.round_keys)
    SqliteBook.create(folder.ledger, folder.anchor(config))
    return _write_card(folder, config, key)


def move(folder: HelperFolder, address: str) -> HelperCard:
    """Give a helper another address: a certificate for it under the same root, and a new card with the same keys.

    Raises
    ------
    ConfigError, RunError
        If this is no helper's folder, the helper runs, or the address is none.
    """
    config = checked_config({**folder.load_config().model_dump(), **at_address(address)})
    with folder.locked():
        for path in (folder.tls.key, folder.tls.certificate):
            path.unlink(missing_ok=True)
        return _write_card(folder, config, read_key(folder.key))


def _write_card(folder: HelperFolder, config: HelperConfig, key: Ed25519PrivateKey) -> HelperCard:
    """Issue the service's certificate, and write card and settings."""
    host = config.address.rpartition(":")[0].strip("[]")
    issue_server_certificate(folder.tls_root, folder.tls.folder, hosts=[host], days=AUTHORITY_DAYS)
    card = HelperCard(
        fleet=config.fleet,
        address=config.address,
        key=key.public_key().public_bytes_raw(),
        certificate=folder.tls_root.certificate.read_text(encoding="ascii"),
    )
    files.replace(folder.card, card.sign(key), mode=files.SHARED)
    files.replace(folder.config, to_toml(config).encode(), mode=files.SHARED)  # last: what holds it is a helper
    return card


def trust(folder: HelperFolder, data: bytes) -> LeaderCard:
    """Take in the leader's card; the same again changes nothing.

    Raises
    ------
    ConfigError
        If it is damaged, for another fleet or helper, or this helper serves another leader.
    """
    config, card = folder.load_config(), LeaderCard.open(data)
    own = read_key(folder.key).public_key().public_bytes_raw()
    if card.fleet != config.fleet:
        raise ConfigError(
            f"the card is of fleet {card.fleet!r}, this helper is for {config.fleet!r}", hint="check the names"
        )
    if card.parties.helper != own:
        raise ConfigError("the card names another helper", hint="give the leader's operator this helper's helper.card")
    if card.parties.leader == own:
        raise ConfigError("leader and helper have one key", hint="the helper must be run by somebody else")
    if folder.leader_card.exists() and folder.leader() != card:
        raise ConfigError(
            "this helper serves another leader, or another authority admits its devices",
            hint="a new leader needs a new helper: palate helper init in another folder",
        )
    files.replace(folder.leader_card, data, mode=files.SHARED)
    return card


def renew_anchor(folder: HelperFolder) -> AnchorFile:
    """Write the anchor anew where it is missing or damaged; one that can be read is left as it is.

    Raises
    ------
    ConfigError, RunError
        If this is no helper's folder, or another process uses it.
    LedgerUnreadable, Tampered, Rollback, Fork
        If the ledger is damaged, or is not the one that a readable anchor saw.
    """
    config = folder.load_config()
    anchor, lost = folder.anchor(config), False
    try:
        anchor.read()
    except (Rollback, Tampered):
        lost = True
    with folder.locked(), closing(open_book(folder, config, anew=lost)):
        return anchor


@contextmanager
def opened(folder: HelperFolder, *, progress: Progress | None = None, alone: bool = True) -> Iterator[HelperService]:
    """Open a helper's folder; its ledger is checked first.

    Parameters
    ----------
    folder
        The helper's.
    progress
        Told how many reports of how many are done.
    alone
        Whether to hold the folder. Whoever only admits devices may do so beside a helper that runs.

    Raises
    ------
    ConfigError, RunError
        If it is no helper's folder, another process uses it, or it does not know its leader.
    LedgerUnreadable, Tampered, Rollback, Fork
        If the ledger is damaged, or is not the one that the anchor saw.
    """
    config, card = folder.load_config(), folder.leader()
    with folder.locked() if alone else nullcontext():
        service = HelperService(
            config.fleet,
            read_key(folder.key),
            card.parties,
            open_book(folder, config, alone=alone),
            suite=SUITES[config.suite],
            round_key_seconds=config.round_key_seconds,
            most_devices=config.most_devices,
            most_words=config.most_words,
            progress=progress,
        )
        with closing(service):
            yield service


def open_book(folder: HelperFolder, config: HelperConfig, *, anew: bool = False, alone: bool = True) -> SqliteBook:
    """Open the ledger of a helper's folder; parameters and errors as of `SqliteBook`."""
    return SqliteBook(
        folder.ledger,
        secrets=RoundSecrets(folder.round_keys),
        anchor=folder.anchor(config),
        fleet=config.fleet,
        key=read_key(folder.key),
        anew=anew,
        alone=alone,
    )
