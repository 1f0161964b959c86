"""The same ratings.csv and movies.csv pass through every command that reads one, with the same options."""

from __future__ import annotations

import json

import pytest

from palate.cli.main import main

TITLES = [
    "Heat",
    "Ran",
    "Matrix, The",
    "Am\u00e9lie",
    "Casino",
    "Seven Samurai",
    "Alien",
    "Brazil",
    "Fargo",
    "Big Fish",
]


def ratings(separator: str, encoding: str) -> bytes:
    rows = [
        (f"{user}", f"{item:03}", f"{3 + (user + item) % 3}", f"{1 + (user + item) % 28}/{1 + item % 12}/2020")
        for user in range(30)
        for item in range(10)
        if (user + item) % 4
    ]
    lines = [("userId", "movieId", "rating", "timestamp"), *rows]
    return "".join(separator.join(line) + "\n" for line in lines).encode(encoding)


def movies(separator: str, encoding: str) -> bytes:
    quote = '"' if separator in ",;" else ""
    rows = [
        (f"{item:03}", f"{quote}{title} ({1980 + item}){quote}", "Crime|Drama" if item % 2 else "Comedy")
        for item, title in enumerate(TITLES)
    ]
    lines = [("movieId", "title", "genres"), *rows]
    return "".join(separator.join(line) + "\n" for line in lines).encode(encoding)


@pytest.fixture(params=[(",", "utf-8"), (";", "latin-1"), ("\t", "utf-16")], ids=["comma", "semicolon", "tab"])
def files(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALATE_HOME", str(tmp_path / "device"))
    monkeypatch.delenv("PALATE_DATA", raising=False)
    (tmp_path / "ratings.csv").write_bytes(ratings(*request.param))
    (tmp_path / "movies.csv").write_bytes(movies(*request.param))
    return tmp_path


@pytest.fixture
def palate(capsys):
    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert code == 0, (arguments, err)
        return out

    return run


def test_the_same_two_files_pass_through_every_command(files, palate):
    described = json.loads(palate("data", "describe", "ratings.csv", "--items", "movies.csv", "--json"))
    assert (described["users"], described["items"], described["described_items"]) == (30, 10, 10)
    assert described["genres"] == {"Comedy": 5, "Crime": 5, "Drama": 5}
    assert described["order"] == "timestamps"

    small = ("--unit", "none", "--rounds", "2", "--dim", "2", "--baselines", "none", "--no-report", "--json")
    palate("simulate", "--data", "ratings.csv", "--items", "movies.csv", *small, "--folder", "run")
    result = json.loads((files / "run" / "result.json").read_bytes())
    assert (result["dataset"]["users"], result["dataset"]["items"]) == (30, 10)

    address = ("--address", "localhost:9191", "--devices", "4")
    palate("server", "init", "--name", "films", *address, "--catalogue", "movies.csv", "--folder", "fleet")
    palate("client", "init", "--keyring", "file")
    (files / "device" / "catalogue.parquet").write_bytes((files / "fleet" / "catalogue.parquet").read_bytes())
    taken = json.loads(palate("client", "import", "ratings.csv", "--user", "7", "--yes", "--json"))
    assert (taken["added"], taken["unknown"], taken["dropped"]) == (taken["rows"], 0, 0)
    assert taken["columns"] == {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    films = json.loads(palate("client", "import", "movies.csv", "--yes", "--json"))
    assert (films["exact"], films["unknown"]) == (10, 0)


@pytest.mark.parametrize(
    "command",
    [
        ("data", "describe", "odd.csv"),
        ("client", "import", "odd.csv"),
        ("server", "init", "--name", "x", "--address", "localhost:9191", "--catalogue", "odd.csv"),
    ],
)
def test_every_command_takes_the_columns_by_position(files, palate, command):
    (files / "odd.csv").write_text("ann,007,4\nann,008,2\nbob,007,5\n")
    if command[0] == "client":
        palate("client", "init", "--keyring", "file")
        command = (*command, "--yes")
    palate(*command, "--columns", "user,item,rating")
