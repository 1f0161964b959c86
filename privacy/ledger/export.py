"""One ledger as text: a header line and one line for each entry, each canonical JSON, without derived values.

For auditors and for exchange: any byte that is changed is a named error (docs/formats/ledger.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger import canonical, reading
from palate.privacy.ledger.chain import Record, Seal
from palate.privacy.ledger.errors import LedgerUnreadable, MalformedBody, Tampered
from palate.privacy.ledger.framing import HASH_SIZE

FORMAT = "palate-ledger/1"
WITH_WINDOWS = "palate-ledger/2"
"""Of a ledger that holds WINDOW entries."""
SIGNATURE_SIZE = 64

_WINDOW = b'"kind":"WINDOW"'


def to_text(name: str, key: Ed25519PublicKey, records: Iterable[Record]) -> bytes:
    """Write one ledger.

    Parameters
    ----------
    name
        Of the ledger.
    key
        That signed it.
    records
        Its entries, in order.
    """
    records = list(records)
    lines = [canonical.encode({"format": _form(records), "key": key.public_bytes_raw().hex(), "ledger": name})]
    lines += [
        canonical.encode(
            {
                "body": record.body.decode("ascii"),
                "index": record.seal.index,
                "path": b"".join(record.seal.path).hex(),
                "signature": record.seal.signature.hex(),
                "size": record.seal.size,
            }
        )
        for record in records
    ]
    return b"".join(line + b"\n" for line in lines)


def export_ledger(path: Path, name: str, key: Ed25519PublicKey) -> bytes:
    """Cut one ledger out of a file, as text; it is verified by itself.

    Raises
    ------
    LedgerUnreadable, Tampered
        As `reading.opened` and `reading.read_records`.
    """
    with reading.opened(path, key) as connection:
        return to_text(name, key, reading.read_records(connection, name))


def from_text(data: bytes, key: Ed25519PublicKey) -> tuple[str, list[Record]]:
    """Read one ledger; verify its records before you trust them.

    Returns
    -------
    name, records
        What `verify_records` takes.

    Raises
    ------
    LedgerUnreadable
        If it is not such a file, or of another version.
    Tampered
        If a line is not canonical, or the file names another key.
    """
    lines = data.split(b"\n")
    if lines.pop() != b"":
        raise Tampered("the last line is cut off")
    if not lines:
        raise LedgerUnreadable("the file is empty", hint="name a ledger that palate wrote")
    header = _fields(lines[0], 1, {"format": str, "key": str, "ledger": str})
    records = [_record(line, number) for number, line in enumerate(lines[1:], start=2)]
    if header["format"] not in (FORMAT, WITH_WINDOWS):
        raise LedgerUnreadable(f"the file is not {FORMAT} or {WITH_WINDOWS}", hint="use the matching palate")
    if header["format"] != _form(records):
        raise Tampered(f"the file says {header['format']}, and its entries are of {_form(records)}")
    if header["key"] != key.public_bytes_raw().hex():
        raise Tampered("the file names another key than the one to verify with")
    return str(header["ledger"]), records


def _form(records: Sequence[Record]) -> str:
    """Name the oldest format that has all these entries; bodies have one spelling, so that the bytes can be sought."""
    return WITH_WINDOWS if any(_WINDOW in record.body for record in records) else FORMAT


def _record(line: bytes, number: int) -> Record:
    wanted: dict[str, type] = {"body": str, "index": int, "path": str, "signature": str, "size": int}
    values = _fields(line, number, wanted)
    path = _unhex(values["path"], number)
    signature = _unhex(values["signature"], number)
    if len(path) % HASH_SIZE or len(signature) != SIGNATURE_SIZE:
        raise Tampered(f"line {number}: a hash or the signature has a wrong length")
    hashes = tuple(path[start : start + HASH_SIZE] for start in range(0, len(path), HASH_SIZE))
    seal = Seal(size=int(values["size"]), index=int(values["index"]), path=hashes, signature=signature)
    return Record(str(values["body"]).encode("ascii"), seal)


def _fields(line: bytes, number: int, wanted: dict[str, type]) -> dict[str, canonical.Value]:
    try:
        values = canonical.decode(line)
    except MalformedBody as error:
        raise Tampered(f"line {number}: {error.message}") from None
    if {name: type(value) for name, value in values.items()} != wanted:
        raise Tampered(f"line {number}: its fields are not {', '.join(wanted)}")
    return values


def _unhex(value: canonical.Value, number: int) -> bytes:
    text = str(value)
    if len(text) % 2 or not set(text) <= set("0123456789abcdef"):
        raise Tampered(f"line {number}: not lower-case hexadecimal")
    return bytes.fromhex(text)
