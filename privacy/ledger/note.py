"""Signed notes: a text and lines of signatures below it (C2SP signed-note, c2sp.org/signed-note).

Ed25519 only: type 0x01 signs the text, type 0x04 is a witness's timestamped cosignature (c2sp.org/tlog-cosignature).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.ledger.errors import BadNote

ED25519 = 0x01
COSIGNATURE = 0x04
MAX_NOTE = 1 << 20
MAX_SIGNATURES = 64
MAX_TIME = (1 << 63) - 1

_SIZES = {ED25519: 64, COSIGNATURE: 72}  # a cosignature starts with its time, eight bytes


def check_key_name(name: str) -> None:
    """Raise BadNote for a name that no key, and so no log, can have."""
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise BadNote("the name of a key or a log must not be empty, nor hold white space or +")


@dataclass(frozen=True)
class NoteKey:
    """A public key with the name that its signatures carry.

    Attributes
    ----------
    name
        A URL without its scheme, such as "example.org/log".
    key
        Ed25519 public key.
    kind
        `ED25519` or `COSIGNATURE`.

    Raises
    ------
    BadNote
        If the name is empty, or holds white space or "+", or the kind is another.
    """

    name: str
    key: Ed25519PublicKey
    kind: int = ED25519

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if self.kind not in _SIZES:
            raise BadNote(f"key type {self.kind} is neither {ED25519} nor {COSIGNATURE}")

    @property
    def key_id(self) -> bytes:
        """Four bytes that distinguish keys of one name."""
        return sha256(f"{self.name}\n".encode() + self._typed()).digest()[:4]

    def encode(self) -> str:
        """Write as a verifier key: name, identifier and key, joined by "+"."""
        return f"{self.name}+{self.key_id.hex()}+{encode64(self._typed())}"

    @staticmethod
    def decode(text: str) -> NoteKey:
        """Read a verifier key.

        Raises
        ------
        BadNote
            If the text is not exactly what `encode` writes.
        """
        name, _, rest = text.partition("+")
        raw = decode64(rest.partition("+")[2])
        if len(raw) != 33:
            raise BadNote(f"a verifier key holds 33 bytes, not {len(raw)}")
        found = NoteKey(name, Ed25519PublicKey.from_public_bytes(raw[1:]), raw[0])
        if found.encode() != text:
            raise BadNote("the verifier key's identifier does not belong to its name and key")
        return found

    def _typed(self) -> bytes:
        return bytes([self.kind]) + self.key.public_bytes_raw()


@dataclass(frozen=True)
class Signature:
    """One signature line: the key's name and identifier, and what it made."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True)
class Note:
    """A text, ending in a newline, with the signatures below it; trust nothing in it before `verified_by`."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Write the note as UTF-8."""
        lines = [f"— {s.name} {encode64(s.key_id + s.value)}\n" for s in self.signatures]
        return (self.text + "\n" + "".join(lines)).encode()

    @staticmethod
    def decode(data: bytes) -> Note:
        """Read a note; its signatures are not checked.

        Raises
        ------
        BadNote
            If the bytes are not a well-formed note of at most `MAX_NOTE` bytes and `MAX_SIGNATURES` signatures.
        """
        if len(data) > MAX_NOTE:
            raise BadNote(f"the note has {len(data)} bytes, at most {MAX_NOTE} are accepted")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadNote("the note is not UTF-8") from None
        if any(character < " " and character != "\n" for character in whole):
            raise BadNote("the note holds control characters")
        # The last blank line ends the text.
        text, separator, below = whole.rpartition("\n\n")
        if not separator or not below.endswith("\n"):
            raise BadNote("the note has no signature lines below a blank line")
        lines = below[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise BadNote(f"{len(lines)} signature lines, at most {MAX_SIGNATURES} are accepted")
        return Note(text + "\n", tuple(_parse_line(line) for line in lines))

    def signed(self, signer: Ed25519PrivateKey, name: str) -> Note:
        """Add an Ed25519 signature over the text."""
        key = NoteKey(name, signer.public_key())
        return self._with(Signature(name, key.key_id, signer.sign(self.text.encode())))

    def cosigned(self, signer: Ed25519PrivateKey, name: str, *, time: int) -> Note:
        """Add a timestamped cosignature over the text; time in seconds since 1970.

        Raises
        ------
        BadNote
            If the time is out of bounds.
        """
        if not 0 <= time <= MAX_TIME:
            raise BadNote(f"time {time} is not within 0 ... {MAX_TIME}")
        key = NoteKey(name, signer.public_key(), COSIGNATURE)
        made = signer.sign(_cosigned_message(self.text, time))
        return self._with(Signature(name, key.key_id, time.to_bytes(8, "big") + made))

    def verified_by(self, keys: Sequence[NoteKey]) -> tuple[NoteKey, ...]:
        """Keys out of a trusted list that signed this text; signatures of other keys are ignored.

        Raises
        ------
        BadNote
            If a signature under a trusted key's name and identifier does not verify, or none is there.
        """
        found = []
        for key in keys:
            own = [line for line in self.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
            for line in own:
                _verify(key, self.text, line)
            if own:
                found.append(key)
        if not found:
            raise BadNote("no trusted key signed the note")
        return tuple(found)

    def _with(self, signature: Signature) -> Note:
        return Note(self.text, (*self.signatures, signature))


def _cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _verify(key: NoteKey, text: str, line: Signature) -> None:
    if len(line.value) != _SIZES[key.kind]:
        raise BadNote(f"the signature of {line.name} has {len(line.value)} bytes, not {_SIZES[key.kind]}")
    message, signature = text.encode(), line.value
    if key.kind == COSIGNATURE:
        time = int.from_bytes(line.value[:8], "big")
        if time > MAX_TIME:
            raise BadNote(f"the cosignature of {line.name} is from beyond {MAX_TIME}")
        message, signature = _cosigned_message(text, time), line.value[8:]
    try:
        key.key.verify(signature, message)
    except InvalidSignature:
        raise BadNote(f"the signature of {line.name} does not fit: the note was edited") from None


def _parse_line(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise BadNote("a signature line is an em dash, a name and a signature, with single spaces")
    name, raw = parts[1], decode64(parts[2])
    if not name or "+" in name or any(character.isspace() for character in name):
        raise BadNote("the name in a signature line is empty, or holds white space or +")
    if len(raw) < 5:
        raise BadNote(f"the signature of {name} is empty")
    return Signature(name, raw[:4], raw[4:])


def encode64(data: bytes) -> str:
    """Write standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode64(text: str) -> bytes:
    """Read standard base64 with padding.

    Raises
    ------
    BadNote
        If the text is not the canonical spelling of any bytes.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("a signature or key is not base64") from None
    if encode64(raw) != text:
        raise BadNote("a signature or key is not canonical base64")
    return raw
