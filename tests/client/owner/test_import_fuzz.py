"""Hundreds of damaged files: each one is imported whole or refused with a hint, and nothing that was there is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from vaults import verified

from palate.cli.errors import ending_of
from palate.client.fleet.importing import plan_import
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import Catalogue
from palate.errors import DataError, PalateError

CATALOGUE = replace(Catalogue.of(("i1", "i2", "i3")), titles=("Heat (1995)", "Ran", "Casino (1995)"))
ROWS = [
    {"item": "i1", "title": "Heat (1995)", "rating": 4.5, "time": 1_700_000_000},
    {"item": "i2", "title": "Ran", "rating": None, "time": None},
    {"item": "zz", "title": "Unheard, \"of\" it", "rating": 1.0, "time": 1_600_000_000},
]  # fmt: skip
SPICE = (
    b"\x00", b"\xff\xfe", b"\n", b"\r\n", b'"', b"'", b",", b"\t", b"nan", b"-inf", b"1e400", b"999999999999999999999",
    b"-1", b"{", b"[", b"]", b"null", b"\\u0000", b"\xed\xa0\x80", "\N{RIGHT-TO-LEFT OVERRIDE}".encode(), b"item",
    b"=1+1", b"PAR1", b"true", b"1e308", b"0x10", b"2024-99-99", b"\xef\xbb\xbf",
)  # fmt: skip


def seeds(folder):
    frame = pl.DataFrame(ROWS)
    frame.write_csv(folder / "a.csv")
    frame.write_csv(folder / "a.tsv", separator="\t")
    frame.write_parquet(folder / "a.parquet")
    (folder / "a.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(made) + 1))
        to = min(at + int(rng.integers(1, 12)), len(made))
        match int(rng.integers(0, 6)):
            case 0:
                made[at:to] = b""
            case 1:
                made[at:at] = SPICE[int(rng.integers(len(SPICE)))]
            case 2:
                made[at:to] = SPICE[int(rng.integers(len(SPICE)))]
            case 3:
                made[at:at] = made[at:to] * int(rng.integers(1, 4))
            case 4 if at < len(made):
                made[at] ^= 1 << int(rng.integers(8))
            case 5:
                del made[at:]
    return bytes(made)


@pytest.mark.campaign(short=100, long=2000)
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_damaged_files_lose_nothing_and_never_crash(tmp_path, kind, repeats):
    (tmp_path / "seeds").mkdir()
    data = seeds(tmp_path / "seeds")[kind]
    rng, refused, taken = np.random.default_rng(7), 0, 0
    with Vault.create(tmp_path / "vault", keyring="file") as vault:
        history = History(vault)
        history.add_many([Interaction(item="i3", value=3.0, time=5)])
        for number in range(repeats):
            path = tmp_path / f"{number}{kind}"
            path.write_bytes(mutated(data, rng))
            before = history.in_order()
            refusal = done = None
            try:
                done = plan_import(path, history, CATALOGUE)
                done.write(history)
            except PalateError as error:
                refusal = error
            after = history.in_order()
            if done is None:
                assert isinstance(refusal, DataError)
                assert refusal.hint
                assert ending_of(refusal).exit_code == 10
                assert after == before, number
                refused += 1
            else:
                kept = {at: entry for at, entry in before if at not in done.replaced}
                assert kept.items() <= dict(after).items(), number
                assert {entry.item for _, entry in before} <= {entry.item for _, entry in after}, number
                assert len(after) == len(before) + done.added, number
                assert done.added <= done.rows
                taken += 1
            path.unlink()
        verified(vault)
        assert dict(history.in_order())[0] == Interaction(item="i3", value=3.0, time=5)
    assert refused
    assert taken or kind == ".parquet"
