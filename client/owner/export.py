"""Everything that the device keeps about its owner, in clear, as JSON: made only when the owner asks for it.

It holds the history, the profile, heads, the ledger entry by entry (`palate audit ledger` reads that part too), every
round and what was sent in it, and the public keys. Secret keys stay sealed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.status import round_json
from palate.client.owner.opening import open_catalogue
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy import files
from palate.privacy.ledger.export import export_ledger
from palate.privacy.ledger.verify import verify_book

FORMAT: Final = "palate-export/1"


def export_all(folder: DeviceFolder) -> dict[str, Any]:
    """Return the owner's data as plain JSON values.

    Raises
    ------
    VaultError, ConfigError
        If there is no device, or its vault cannot be opened.
    PrivacyError
        If the ledger is damaged.
    """
    with Vault.open(folder.vault) as vault:
        keys, round_log = DeviceKeys.load(vault), RoundLog(vault)
        public = {
            "ledger": keys.ledger.public_key().public_bytes_raw().hex(),
            "node": keys.node.public_pem.decode("ascii"),
            "signing": keys.signing.public_key().public_bytes_raw().hex(),
        }
        ledgers = {}
        if folder.ledger.exists():
            own = keys.ledger.public_key()
            for name in verify_book(folder.ledger, own, allow_open=True):
                ledgers[name] = export_ledger(folder.ledger, name, own).decode("utf-8").splitlines()
        return {
            "format": FORMAT,
            "made": int(time.time()),
            "device": keys.name,
            "public_keys": public,
            "vault": vault.export(),
            "titles": _titles(folder, vault),
            "rounds": [{**round_json(record), "offer": asdict(record)["offer"]} for record in round_log.records()],
            "refusals": round_log.refusals(),
            "ledgers": ledgers,
        }


def _titles(folder: DeviceFolder, vault: Vault) -> dict[str, str]:
    """Title of every item of the history and the marks that the catalogue lists, by its key."""
    history, catalogue = History(vault), open_catalogue(folder, vault)
    keys = dict.fromkeys([*(entry.item for _, entry in history.in_order()), *history.marks()])
    return {key: catalogue.titles[row] for key in keys if (row := catalogue.rows.get(key)) is not None}


def export_bytes(folder: DeviceFolder) -> bytes:
    """Return the owner's data as a JSON file; raises as `export_all`."""
    return json.dumps(export_all(folder), indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def export_to(folder: DeviceFolder, path: Path) -> int:
    """Write the owner's data into a new file that nobody else may read, and return its size in bytes.

    Raises
    ------
    ConfigError
        If something has that name already.
    EnvironmentProblem
        If the file cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path} is there already", hint="name a new file; an old export is not overwritten")
    data = export_bytes(folder)
    try:
        files.create(path.absolute(), data)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="name a new file") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}", hint="choose another folder") from None
    return len(data)
