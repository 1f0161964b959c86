"""The public record of a fleet's rounds: a Merkle log under signed checkpoints (RFC 6962; c2sp.org/tlog-checkpoint).

Every applied round is a leaf, and a device's receipt names its index. Whoever keeps an old checkpoint can be shown that
the log has only grown. One leaf a line, as canonical JSON: publish the folder as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import RunError
from palate.privacy import files
from palate.privacy.ledger import canonical
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.merkle import MerkleTree, leaf_hash


class TransparencyLog:
    """The log of one fleet, on disk.

    Parameters
    ----------
    folder
        Holds `leaves.jsonl` and `checkpoint`; made if it is not there.
    origin
        The log's name, and the name of its key.
    signer
        The server's key.

    Raises
    ------
    RunError
        If a line of the log is damaged; what a crash cut off at the end is dropped.
    """

    def __init__(self, folder: Path, origin: str, signer: Ed25519PrivateKey) -> None:
        self._folder = folder
        self._origin = origin
        self._signer = signer
        folder.mkdir(parents=True, exist_ok=True)
        self._leaves: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._tree = MerkleTree()
        self._load()

    @property
    def path(self) -> Path:
        """The leaves."""
        return self._folder / "leaves.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        """The signed head."""
        return self._folder / "checkpoint"

    @property
    def head(self) -> TreeHead:
        """Size and root of the log as it is now."""
        return TreeHead.of(self._origin, self._tree)

    @property
    def checkpoint(self) -> bytes:
        """The signed head of the log as it is now."""
        return self.head.sign(self._signer).encode()

    @property
    def published(self) -> bytes:
        """The checkpoint as it is published: with a cosignature, if there is one for the log as it is now."""
        kept = self.checkpoint_path.read_bytes() if self.checkpoint_path.exists() else b""
        return kept if kept.startswith(self.checkpoint) else self.checkpoint

    def cosign(self, witness: Callable[[bytes, Callable[[int], Sequence[bytes]]], bytes]) -> None:
        """Have a witness cosign the checkpoint, and publish it so.

        Parameters
        ----------
        witness
            Given the checkpoint, and a function that proves that it extends a smaller log, returns it cosigned.
        """
        files.replace(self.checkpoint_path, witness(self.checkpoint, self._tree.consistency_proof), mode=files.SHARED)

    @property
    def leaf_hashes(self) -> tuple[bytes, ...]:
        """Hashes of all leaves, 32 bytes each, oldest first."""
        return tuple(leaf_hash(leaf) for _, leaf in self._leaves.values())

    def leaf(self, run: str, server_round: int) -> dict[str, canonical.Value] | None:
        """Return what the log says of a round; None where it lacks the round."""
        known = self._leaves.get((run, server_round))
        return None if known is None else canonical.decode(known[1])

    def record(self, run: str, server_round: int, *, survivors: bytes, total: bytes, model: bytes) -> int:
        """Add a round, unless it is there, and return its index; on disk before this returns.

        Parameters
        ----------
        run, server_round
            Which round.
        survivors, total, model
            SHA-256 of the survivors' list, of the sum, and of the new item table, 32 bytes each.

        Raises
        ------
        RunError
            If the round is there with other hashes: one round has one sum.
        """
        leaf = canonical.encode(
            {
                "run": run,
                "round": server_round,
                "survivors": survivors.hex(),
                "total": total.hex(),
                "model": model.hex(),
            }
        )
        known = self._leaves.get((run, server_round))
        if known is None:
            with self.path.open("ab") as file:
                file.write(leaf + b"\n")
                file.flush()
                os.fsync(file.fileno())
            index = self._add(run, server_round, leaf)
        else:
            index, before = known
            if before != leaf:
                raise RunError(
                    f"round {server_round} is in the public log with another sum or table",
                    hint="restore run/ and fleet.sqlite from the same backup",
                )
        files.replace(self.checkpoint_path, self.checkpoint, mode=files.SHARED)
        return index

    def _load(self) -> None:
        written = self.path.read_bytes() if self.path.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]
        for count, leaf in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                values = canonical.decode(leaf)
                self._add(str(values["run"]), int(values["round"]), leaf)
            except (MalformedBody, KeyError, ValueError) as error:
                raise RunError(f"{self.path}: line {count} is damaged", hint="restore it from a backup") from error
        if whole != written:
            files.replace(self.path, whole, mode=files.SHARED)

    def _add(self, run: str, server_round: int, leaf: bytes) -> int:
        index = self._tree.append(leaf)
        self._leaves[run, server_round] = index, leaf
        return index
