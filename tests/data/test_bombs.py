"""Small files that would unpack to gigabytes, to every reader of a stranger's file: each is refused at once, by name.

Each case runs in a process of its own, of which time and memory are measured after the libraries are imported.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from oracle.parquet import parquet_file

from palate.data.catalogue import Catalogue
from palate.data.files import UNLIMITED
from palate.data.parquet import read_parquet
from palate.errors import DataError

MOST_SECONDS, MOST_MIB = 2.0, 300
"""Of CPU time, and of memory next to what the libraries take."""
_BILLION = 10**9

_RUN = """
import json, resource, sys, time
from pathlib import Path
from palate.client.fleet.enrolling import read_welcome
from palate.client.fleet.importing import plan_import
from palate.data.catalogue import Catalogue
from palate.data.files import UNLIMITED
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.data.personal import read_personal
from palate.data.reading import read_interactions
from palate.errors import PalateError
from palate.simulation.report.ranked import read_evaluation

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a test that fails must not take the machine with it

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def read(path):
    return {statement}

read_items(Path(sys.argv[1], "warm.csv"))
found = {{}}
for path in sorted(Path(sys.argv[1], "given").iterdir()):
    before, started, said = peak(), time.process_time(), []
    try:
        read(path)
    except PalateError as error:
        said = [type(error).__name__, error.message, error.hint]
    found[path.name] = said, time.process_time() - started, peak() - before
print(json.dumps(found))
"""


def zipped(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


def gzipped(unit: bytes, times: int) -> bytes:
    """Gzip of a text that is repeated, made without the whole of it."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(times):
            file.write(unit)
    return packed.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "parquet of equal values": lambda: parquet_file(rows=_BILLION),
    "parquet of one long text": lambda: parquet_file(rows=900_000, text=b"y" * 2000),
    "parquet of a page of 2 GB": lambda: parquet_file(rows=1, page_bytes=2**31 - 1),
    "parquet whose page lies": lambda: parquet_file(rows=3, page_held=_BILLION),
    "parquet whose column lies": lambda: parquet_file(rows=_BILLION, held=3, page_held=3),
    "parquet of nested columns": lambda: parquet_file(rows=1, groups=5000),
    "zip of zeros": lambda: zipped({"ratings.csv": bytes(1 << 26)}),
    "zip in a zip": lambda: zipped({"ratings.csv": zipped({"ratings.csv": bytes(1 << 26)})}),
    "zip of 60,000 entries": lambda: zipped({f"{at}.csv": b"" for at in range(60_000)}),
    "gzip of zeros": lambda: gzipped(bytes(1 << 20), 400),
    "gzip of one line of 500 MB": lambda: gzipped(b"a" * (1 << 20), 500),
    "gzip in a zip": lambda: zipped({"ratings.csv": gzipped(bytes(1 << 20), 200)}),
    "gzip of empty fields": lambda: gzipped(b"," * (1 << 20), 60),
    "lines of commas": lambda: b"user,item\n" + (b"," * 2000 + b"\n") * 10_000,
    "quoted lines of commas": lambda: b'user,item\n"a",b\n' + (b"," * 2000 + b"\n") * 10_000,
    "JSON with fields of its own in every record": lambda: b"\n".join(b'{"%d":1}' % at for at in range(30_000)),
    "JSON of empty lists": lambda: b'{"a":[' + b"[]," * 4_000_000 + b"{}]}",
    "JSON that never ends": lambda: b'{"a":[1,\n' * 20_000,
}


def run(folder: Path, statement: str) -> dict[str, tuple[list[str], float, float]]:
    """For each file in `given`: the error's name, words and hint; CPU seconds; and MiB."""
    (folder / "warm.csv").write_text("item,title\na,A\n")
    done = subprocess.run(
        [sys.executable, "-c", _RUN.format(statement=statement), str(folder)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, tuple[list[str], float, float]] = json.loads(done.stdout)
    return found


def require_refusals(folder: Path, statement: str, bombs: dict[str, bytes]) -> None:
    """Every bomb is refused by a named error with a hint, in little time and memory."""
    (folder / "given").mkdir()
    for name, data in bombs.items():
        (folder / "given" / name).write_bytes(data)
    found = run(folder, statement)
    wrong = {
        name: (said, seconds, mib)
        for name, (said, seconds, mib) in found.items()
        if not all(said) or not said or seconds > MOST_SECONDS or mib > MOST_MIB
    }
    assert set(found) == set(bombs)
    assert not wrong


def test_an_import_of_a_bomb_is_refused_at_once(tmp_path):
    require_refusals(tmp_path, "plan_import(path, None, None)", {name: make() for name, make in BOMBS.items()})


@pytest.mark.parametrize("reader", ["read_interactions(path)", "read_items(path)"])
def test_data_that_is_a_bomb_is_refused_at_once(tmp_path, reader):
    chosen = ("parquet of equal values", "gzip of zeros", "zip of zeros", "gzip in a zip")
    require_refusals(tmp_path, reader, {name: BOMBS[name]() for name in chosen})


def test_a_catalogue_that_is_a_bomb_is_refused_at_once(tmp_path):
    bombs = {name: make() for name, make in BOMBS.items() if name.startswith("parquet")}
    require_refusals(tmp_path, "Catalogue.from_parquet(path.read_bytes(), hint='ask again')", bombs)


def test_a_runs_ranks_that_are_a_bomb_are_refused_at_once(tmp_path):
    bomb = {"evaluation.parquet": BOMBS["parquet of equal values"]()}
    require_refusals(tmp_path, "read_evaluation(path.parent, 10, 10)", bomb)


def test_a_welcome_that_is_a_bomb_is_refused_at_once(tmp_path):
    bombs = {
        "fields": zipped({"welcome.json": bytes(1 << 26), "catalogue.parquet": b"x"}),
        "catalogue": zipped({"welcome.json": b"{}", "catalogue.parquet": bytes(1 << 27)}),
        "entries": zipped({f"{at}": b"" for at in range(60_000)}),
    }
    require_refusals(tmp_path, "read_welcome(path)", bombs)


def test_honest_files_of_the_same_kinds_are_read():
    frame = read_parquet("a.parquet", parquet_file(rows=9), UNLIMITED)
    assert frame["item"].to_list() == ["x"] * 9
    assert Catalogue.from_parquet(parquet_file(rows=1), hint="").ids == ("x",)


def test_a_long_list_of_json_is_read_in_time_that_grows_with_it(tmp_path):
    rows = [{"item": f"i{at}", "rating": at % 5, "title": f"Title {at}"} for at in range(60_000)]
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "ratings.json").write_text(json.dumps(rows))
    said, seconds, _ = run(tmp_path, "read_personal(path, ReadOptions(), UNLIMITED)")["ratings.json"]
    assert not said
    assert seconds < 2 * MOST_SECONDS


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_parquet_file_that_is_damaged_anywhere_is_refused_in_words(cut):
    data = bytearray(parquet_file(rows=9))
    data[-1 - cut % len(data)] ^= 0x15
    with suppress(DataError):  # no other error, and no crash; some bytes say nothing
        read_parquet("a.parquet", bytes(data), UNLIMITED)


def test_the_bombs_are_small():
    assert len(BOMBS["parquet of equal values"]()) < 2335
