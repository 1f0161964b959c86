"""The newest end of the helper's ledger in one small file, best on another medium: a restored backup falls behind it.

    {"answer":"...","fleet":"films","format":"palate-helper-anchor/1","log_root":"...","log_size":3,"sequence":3,
     "signature":"..."}

Canonical JSON (docs/formats/ledger.md), signed by the helper.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import EnvironmentProblem
from palate.privacy import files
from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody, Rollback, Tampered
from palate.privacy.ledger.framing import HASH_SIZE, framed
from palate.privacy.ledger.merkle import EMPTY_ROOT

FORMAT: Final = "palate-helper-anchor/1"
_TAG = b"palate/helper/anchor/1"


@dataclass(frozen=True, kw_only=True)
class LedgerEnd:
    """Where a helper's ledger ends.

    Attributes
    ----------
    sequence, answer_hash
        Answers given, and the hash of the newest, 32 bytes; zeros before the first.
    log_size, log_root
        Of the newest checkpoint of the leader's log that the helper has cosigned.
    """

    sequence: int = 0
    answer_hash: bytes = bytes(HASH_SIZE)
    log_size: int = 0
    log_root: bytes = EMPTY_ROOT


@dataclass(frozen=True)
class AnchorFile:
    """The file.

    Attributes
    ----------
    path
        Where it lies.
    fleet, key
        Whose it is, and what signs it.
    """

    path: Path
    fleet: str
    key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"AnchorFile({str(self.path)!r})"

    def write(self, end: LedgerEnd) -> None:
        """Replace what is there; on disk when this returns.

        Raises
        ------
        EnvironmentProblem
            If it cannot be written.
        """
        values = self._values(end)
        signature = self.key.sign(framed(_TAG, canonical.encode(values))).hex()
        try:
            files.replace(self.path, canonical.encode({**values, "signature": signature}))
        except OSError as error:
            raise EnvironmentProblem(
                f"the anchor {self.path} cannot be written: {error.strerror}",
                hint="mount its medium; nothing is answered before the anchor is written",
            ) from None

    def read(self) -> LedgerEnd:
        """Read the end that was written last.

        Raises
        ------
        Rollback
            If the file is not there.
        Tampered
            If it is damaged, or not this helper's.
        """
        try:
            values = canonical.decode(self.path.read_bytes())
            signature = canonical.unhex(values.pop("signature", ""), 64)
            self.key.public_key().verify(signature, framed(_TAG, canonical.encode(values)))
            end = LedgerEnd(
                sequence=int(values["sequence"]),
                answer_hash=canonical.unhex(values["answer"], HASH_SIZE),
                log_size=int(values["log_size"]),
                log_root=canonical.unhex(values["log_root"], HASH_SIZE),
            )
            if values != self._values(end):
                raise MalformedBody("it is for another fleet, or of another format")
        except FileNotFoundError:
            raise Rollback(
                f"the anchor {self.path} is missing, and without it nobody can tell whether an old ledger was put back",
                hint="mount its medium; if it is lost for good, write it anew: palate helper anchor",
            ) from None
        except OSError as error:
            raise EnvironmentProblem(f"the anchor {self.path}: {error.strerror}", hint="mount its medium") from None
        except (MalformedBody, InvalidSignature, KeyError, ValueError):
            raise Tampered(
                f"the anchor {self.path} is damaged, or another helper's",
                hint="name the right file; if it is lost for good, write it anew: palate helper anchor",
            ) from None
        return end

    def _values(self, end: LedgerEnd) -> dict[str, canonical.Value]:
        return {
            "format": FORMAT,
            "fleet": self.fleet,
            "sequence": end.sequence,
            "answer": end.answer_hash.hex(),
            "log_size": end.log_size,
            "log_root": end.log_root.hex(),
        }
