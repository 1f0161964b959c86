"""Five hundred broken files: an import takes all of a file or says in words why not, and never loses what was there."""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import replace

import polars as pl
import pytest

from palate.client.fleet.importing import plan_import
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.data.catalogue import Catalogue
from palate.errors import PalateError

CATALOGUE = replace(Catalogue.of(("i1", "i2", "i3")), titles=("Heat (1995)", "Ran, or: Chaos", "Heat (1986)"))
ROWS = [{"item": f"i{n % 5}", "rating": n / 2, "time": 10**9 + n} for n in range(8)]
ODD = [b'"', b",", b"\n", b"\r", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"nan", b"-inf", b"1e999", b"{", b"]", b"null"]
ODD += [b"9" * 40, b"item,item", "\N{RIGHT-TO-LEFT OVERRIDE}\u0301".encode(), b"\x1b[2J"]


def valid(kind: str) -> bytes:
    frame, file = pl.DataFrame(ROWS), io.BytesIO()
    if kind == "parquet":
        frame.write_parquet(file)
        return file.getvalue()
    if kind == "json":
        return json.dumps(ROWS).encode()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("ratings.csv", "watched.csv"):
                archive.writestr(name, "Date,Name,Year,Letterboxd URI\n2024-01-02,Heat,1995,x\n2024-01-02,Ran,1985,y\n")
        return file.getvalue()
    if kind == "xml":
        one = "<anime><series_title>Heat</series_title><my_score>9</my_score><my_status>Completed</my_status></anime>"
        return f"<myanimelist>{one}{one.replace('Heat', 'Ran')}</myanimelist>".encode()
    if kind == "txt":
        return b"Ran (A. Bell)\n- Your Note | Added on Sunday, 4 June 2023 12:18:46\n\nx\n==========\n" * 3
    if kind == "jsonl":
        return b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    return frame.write_csv(separator="\t" if kind == "tsv" else ",").encode()


def broken(content: bytes, chance: random.Random) -> bytes:
    """Cut, flip, insert, double or drop pieces, a few times over."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(content))
        stop = min(len(content), start + chance.randint(0, 12))
        piece = chance.choice(
            [b"", chance.randbytes(stop - start), chance.choice(ODD), content[start:stop] * 2, chance.choice(ODD) * 9]
        )
        content = content[:start] + piece + content[stop:]
        if chance.random() < 0.2:
            content = content[: chance.randint(0, len(content))]
    return content


@pytest.mark.campaign(short=60, long=2000)
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "zip", "xml", "txt"])
def test_a_broken_file_is_taken_whole_or_refused_in_words_and_nothing_is_lost(tmp_path, kind, repeats):
    chance, content = random.Random(f"imports of {kind}"), valid(kind)
    taken, refused = 0, []
    with Vault.create(tmp_path / "vault", keyring="file") as vault:
        history = History(vault)
        for number in range(repeats):
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(broken(content, chance))
            before, added, replaced = history.in_order(), 0, ()
            try:
                plan = plan_import(path, history, CATALOGUE)
                plan.write(history)
                added, replaced = plan.added, plan.replaced
                taken += 1
            except PalateError as error:
                refused.append(error)
            after = history.in_order()
            assert len(after) == len(before) + added, number
            assert {entry for at, entry in before if at not in replaced} <= {entry for _, entry in after}, number
            assert {entry.item for _, entry in before} <= {entry.item for _, entry in after}, number
        vault.check()
    assert all(error.message and error.hint for error in refused)
    assert len(refused) > 5, "hardly anything was broken"
    assert taken > 2 or kind in ("json", "parquet", "zip", "xml"), (
        "nothing got through: this says nothing about histories"
    )
