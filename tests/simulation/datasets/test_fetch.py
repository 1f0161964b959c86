"""Fetching: nothing without consent, nothing unverified, nothing half written."""

import functools
import hashlib
import io
import threading
import zipfile
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from palate.errors import ConfigError, DataError, EnvironmentProblem
from palate.simulation.datasets import fetch
from palate.simulation.datasets.presets import load

FILES = {
    "ml-1m/ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::661::4::978301968\n",
    "ml-1m/movies.dat": "1193::Nest (1975)::Drama\n661::Peach (1996)::Animation|Musical\n",
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "ml-1m/README": "terms\n",
}
RECBOLE = {
    "s.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t5\t20\n1\t8\t4\t10\n2\t7\t3\t5\n",
    "s.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "7\tToy Story\t1995\tAnimation Children's\n8\tunknown\t\t\n",
    "s.user": "user_id:token\tage:token\tgender:token\n1\t24\tM\n2\t53\tF\n",
}
MEMBERS = tuple(f"data/{name}" for name in RECBOLE)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A stand-in for the owner's site; `publish` puts a zip file there."""
    monkeypatch.delenv("PALATE_DATA", raising=False)
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    served = tmp_path / "served"
    served.mkdir()
    server = HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def publish(data, md5=None, name="ml-1m"):
        (served / "ml.zip").write_bytes(data)
        archive = fetch.Archive(
            url=f"http://127.0.0.1:{server.server_port}/ml.zip",
            md5=md5 or hashlib.md5(data, usedforsecurity=False).hexdigest(),
            members=tuple(FILES),
        )
        monkeypatch.setattr(fetch, "_ARCHIVES", {name: archive})

    yield SimpleNamespace(publish=publish, cache=tmp_path / "cache", served=served)
    server.shutdown()
    server.server_close()


def left_behind(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_fetched_dataset_loads_with_titles_groups_and_times(site):
    site.publish(zipped(FILES))
    seen = []
    got = fetch.get("ml-1m", agree=lambda terms: "research" in terms, progress=lambda *step: seen.append(step))
    assert got.folder == site.cache / "ml-1m"
    assert left_behind(site.cache) == ["ml-1m"]
    assert left_behind(got.folder) == ["README", "movies.dat", "ratings.dat", "users.dat"]
    assert seen[-1][0] == seen[-1][1] > 0
    data = load("ml-1m")
    assert data.users == ("1", "2")
    assert data.item.tolist() == [0, 1, 1]
    assert data.catalogue.genres == (("Drama",), ("Animation", "Musical"))
    assert data.demographics == {"gender": ("F", "M"), "age": ("under 18", "56+")}
    assert fetch.get("ml-1m", agree=lambda terms: False).origin == "already here"


def test_nothing_is_fetched_without_consent(site):
    site.publish(zipped(FILES))
    with pytest.raises(ConfigError, match="not agreed"):
        fetch.get("ml-1m", agree=lambda terms: False)
    assert left_behind(site.cache) == []


def test_altered_download_is_refused_and_leaves_nothing(site):
    site.publish(zipped(FILES), md5="0" * 32)
    with pytest.raises(EnvironmentProblem, match="checksum"):
        fetch.get("ml-1m", agree=lambda terms: True)
    assert left_behind(site.cache) == []


@pytest.mark.parametrize("data", [b"not a zip file", zipped({"ml-1m/ratings.dat": "1::1::1::1\n"})])
def test_archive_of_another_shape_is_refused_and_leaves_nothing(site, data):
    site.publish(data)
    with pytest.raises(EnvironmentProblem):
        fetch.get("ml-1m", agree=lambda terms: True)
    assert left_behind(site.cache) == []


def test_unreachable_owner_without_a_package_hints_at_placing_the_files(site):
    site.publish(zipped(FILES))
    (site.served / "ml.zip").unlink()
    with pytest.raises(EnvironmentProblem, match="cannot fetch") as caught:
        fetch.get("ml-1m", agree=lambda terms: True)
    assert "PALATE_DATA" in caught.value.hint
    assert left_behind(site.cache) == []


@pytest.fixture
def pip(site, monkeypatch):
    """The owner's site is down; `pip(returncode, sha256)` decides what pip does instead."""
    site.publish(zipped(FILES), name="ml-100k")
    (site.served / "ml.zip").unlink()
    wheel = zipped(dict(zip(MEMBERS, RECBOLE.values(), strict=True)))

    right = hashlib.sha256(wheel).hexdigest()

    def behave(*, returncode=0, sha256=right):
        package = fetch.Package(requirement="recbole==0", wheel="recbole.whl", sha256=sha256, members=MEMBERS)

        def run(command, **_):
            if returncode == 0:
                Path(command[command.index("--dest") + 1], package.wheel).write_bytes(wheel)
            return SimpleNamespace(returncode=returncode, stderr="ERROR: no matching distribution\n")

        monkeypatch.setattr(fetch, "_PACKAGES", {"ml-100k": package})
        monkeypatch.setattr(fetch.subprocess, "run", run)

    return behave


def test_unreachable_owner_falls_back_to_the_package(pip):
    pip()
    got = fetch.get("ml-100k", agree=lambda terms: True)
    assert "recbole" in got.origin
    assert left_behind(got.folder) == ["s.inter", "s.item", "s.user"]
    data = load("ml-100k")
    assert data.catalogue.titles == ("Toy Story", "unknown")
    assert data.catalogue.years.tolist() == [1995, 0]
    assert data.catalogue.genres == (("Animation", "Children's"), ())
    assert data.item.tolist() == [1, 0, 0]
    assert data.demographics["age"] == ("18-24", "50-55")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [({"returncode": 1}, "nor recbole==0 through pip"), ({"sha256": "0" * 64}, "has sha256")],
)
def test_package_that_fails_or_differs_leaves_nothing(site, pip, behaviour, message):
    pip(**behaviour)
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        fetch.get("ml-100k", agree=lambda terms: True)
    assert caught.value.hint
    assert left_behind(site.cache) == []


def test_cache_that_cannot_be_written_is_named(site, monkeypatch, tmp_path):
    site.publish(zipped(FILES))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match="cannot write") as caught:
        fetch.get("ml-1m", agree=lambda terms: True)
    assert "PALATE_CACHE" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"), [("ml-1k", "no preset"), ("demo", "built in"), ("msweb", "cannot be fetched")]
)
def test_what_cannot_be_fetched_says_why(site, name, message):
    with pytest.raises(DataError, match=message) as caught:
        fetch.get(name, agree=lambda terms: True)
    assert caught.value.hint
