"""The datasets that are known by name, and loading any dataset by name or path.

A new one is a constant and a line in `PRESETS`, or an entry point `palate.datasets` of another package.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import platformdirs
import polars as pl

from palate.data.interactions import Interactions, clean
from palate.data.options import ReadOptions
from palate.data.reading import read_interactions
from palate.data.tables import read_table
from palate.data.values import ROLE_NAMES, as_text, find_column
from palate.errors import ConfigError, DataError
from palate.models.registry import Registry, instance_of
from palate.simulation.datasets.demo import demo_catalogue_and_rows

# GroupLens' own bands in users.dat; exact ages (u.user) are put into the same bands.
_BANDS = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
_BAND_STARTS = np.array([0, 18, 25, 35, 45, 50, 56])


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A dataset known by name: files in a folder of its own, or made by `read`.

    Attributes
    ----------
    name
        Key in the registry.
    description
        What it holds, in one line.
    licence
        The owner's terms, in short.
    redistribution
        Whether the data may be redistributed.
    citation
        Whom to acknowledge.
    how_to_get
        How the files come onto this machine.
    folder
        Its folder under PALATE_DATA and under the cache.
    fetchable
        Whether `palate data get` can fetch it.
    defaults
        Cleaning options that apply unless others are given.
    read
        Makes or reads the data, for one that is not files in a folder; `palate.data.reading.read_interactions` takes
        frames, too.
    """

    name: str
    description: str
    licence: str = ""
    redistribution: str = ""
    citation: str = ""
    how_to_get: str = "comes with its package"
    folder: str = ""
    fetchable: bool = False
    defaults: ReadOptions = field(default_factory=ReadOptions)
    read: Callable[[ReadOptions], Interactions] | None = None


_GROUPLENS = (
    "GroupLens terms: research use; acknowledge in publications; no redistribution without separate permission; "
    "no commercial use without permission; no endorsement implied"
)
_BY_HAND = "place interactions.csv.gz (and items.csv.gz) in a folder of this name, and set PALATE_DATA to its parent"


def _read_demo(options: ReadOptions) -> Interactions:
    if options.items is not None:
        raise ConfigError("--items cannot be given with demo", hint="the demo describes its own items")
    described, raw = demo_catalogue_and_rows()
    return clean(raw, name="demo", options=options, described=described)


DEMO = Preset(
    name="demo",
    description="Invented films and viewers, made by code in a second; tastes drift, franchises exist",
    licence="Apache-2.0, as Palate itself",
    redistribution="yes",
    citation="none needed",
    how_to_get="built in",
    read=_read_demo,
)
ML_100K = Preset(
    name="ml-100k",
    description="MovieLens 100K: 943 people rate 1,682 films, 1997 to 1998",
    licence=_GROUPLENS,
    redistribution="no",
    citation="Harper & Konstan 2015, doi:10.1145/2827872",
    how_to_get="palate data get ml-100k",
    folder="ml-100k",
    fetchable=True,
)
ML_1M = Preset(
    name="ml-1m",
    description="MovieLens 1M: 6,040 people rate 3,706 films, 2000 to 2003",
    licence=_GROUPLENS,
    redistribution="no",
    citation="Harper & Konstan 2015, doi:10.1145/2827872",
    how_to_get="palate data get ml-1m",
    folder="ml-1m",
    fetchable=True,
)
MSWEB = Preset(
    name="msweb",
    description="Anonymous Microsoft Web: 37,711 people and the areas of a site that they visited, no times",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    redistribution="yes",
    citation="Breese, Heckerman & Kadie 1998, doi:10.24432/C5VS3Q",
    how_to_get=_BY_HAND,
    folder="msweb",
    defaults=ReadOptions(min_user=2),
)
MOVIETWEETINGS_100K = Preset(
    name="movietweetings-100k",
    description="MovieTweetings 100K: film ratings posted on Twitter in 2013",
    licence="MIT, copyright 2013 Simon Dooms",
    redistribution="yes",
    citation="Dooms, De Pessemier & Martens 2013, CrowdRec at RecSys",
    how_to_get=_BY_HAND,
    folder="movietweetings-100k",
    defaults=ReadOptions(min_user=5, min_item=5),
)
ONLINE_RETAIL = Preset(
    name="online-retail",
    description="Online Retail: first purchases of gift-ware by 4,335 customers, 2010 to 2011",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    redistribution="yes, naming the changes",
    citation="Chen 2015, doi:10.24432/C5BW33",
    how_to_get=_BY_HAND,
    folder="online-retail",
    defaults=ReadOptions(min_user=5, min_item=5),
)
GOWALLA = Preset(
    name="gowalla",
    description="Gowalla check-ins: 29,858 people, 40,981 places, no times (the LightGCN version)",
    licence="no licence stated (SNAP loc-gowalla)",
    redistribution="no",
    citation="Cho, Myers & Leskovec 2011, doi:10.1145/2020408.2020579",
    how_to_get=_BY_HAND,
    folder="gowalla",
)
AMAZON_VIDEO = Preset(
    name="amazon-video",
    description="Amazon Instant Video: 8,072 people, 11,830 titles (the PFedRec version)",
    licence="no licence stated; offered by its collectors for research",
    redistribution="no",
    citation="McAuley et al. 2015, doi:10.1145/2766462.2767755",
    how_to_get=_BY_HAND.replace("of this name", "amazon-video-pfedrec"),
    folder="amazon-video-pfedrec",
)


_NAMES = ("demo", "ml-100k", "ml-1m", "msweb", "movietweetings-100k", "online-retail", "gowalla", "amazon-video")
PRESETS: Final[Registry[Preset]] = Registry(
    "dataset",
    "palate.datasets",
    {name: f"palate.simulation.datasets.presets:{name.upper().replace('-', '_')}" for name in _NAMES},
    instance_of(Preset),
)

IN_MEMORY = "frame-"
"""Prefix of the name of a dataset that was a frame in memory, not a file."""

_SUFFIXES = tuple(
    f"{kind}{packed}" for kind in (".csv", ".tsv", ".parquet", ".json", ".jsonl") for packed in ("", ".gz", ".zip")
)
_INTERACTION_FILES = (
    *(f"{stem}{suffix}" for stem in ("interactions", "ratings") for suffix in _SUFFIXES),
    *("ratings.dat", "ratings.dat.gz", "u.data", "u.data.gz", "*.inter", "*.inter.gz"),
)
_ITEM_FILES = (
    *(f"{stem}{suffix}" for stem in ("items", "movies") for suffix in _SUFFIXES),
    *("movies.dat", "movies.dat.gz", "u.item", "u.item.gz", "*.item", "*.item.gz"),
)
_USER_FILES = (
    *("users.csv", "users.csv.gz", "users.dat", "users.dat.gz"),
    *("u.user", "u.user.gz", "*.user", "*.user.gz"),
)


def load(spec: str | Path, *, options: ReadOptions | None = None) -> Interactions:
    """Load a dataset by preset name, file or folder.

    Parameters
    ----------
    spec
        A name in `PRESETS`, a file of interactions, or a folder with interactions.csv (or .csv.gz, .parquet ...)
        and optionally items.csv and users.csv. A file called like a preset is reached as ./name.
    options
        Reading options; what they leave open is the preset's choice.

    Raises
    ------
    DataError
        If there is no such dataset, it is not on this machine, or it cannot be used.
    """
    options = options or ReadOptions()
    if str(spec) not in PRESETS:
        path = Path(spec)
        try:
            path = path.expanduser()
            found = path.exists()
        except (OSError, RuntimeError):  # a name too long, "~nobody"
            found = False
        if not found:
            raise _unknown(str(spec))
        return _load_path(path, _plain_name(path), options)
    preset = PRESETS[str(spec)]
    options = options.over(preset.defaults)
    if preset.read is not None:
        return preset.read(options)
    folder = locate(str(spec))
    if folder is None:
        raise DataError(f"{spec} is not on this machine", hint=preset.how_to_get)
    return _load_path(folder, str(spec), options)


def locate(name: str) -> Path | None:
    """Folder of a preset on this machine, under PALATE_DATA first, then in the cache; None where it is not."""
    places = [cache_folder()]
    if os.environ.get("PALATE_DATA"):
        places.insert(0, Path(os.environ["PALATE_DATA"]).expanduser())
    folders = [place / PRESETS[name].folder for place in places if PRESETS[name].folder]
    return next((folder for folder in folders if _first_of(folder, _INTERACTION_FILES) is not None), None)


def cache_folder() -> Path:
    """Where fetched datasets are kept: PALATE_CACHE, or the user's cache folder."""
    return Path(os.environ.get("PALATE_CACHE") or platformdirs.user_cache_dir("palate")).expanduser()


def _load_path(path: Path, name: str, options: ReadOptions) -> Interactions:
    folder = path if path.is_dir() else None
    source = path if folder is None else _first_of(folder, _INTERACTION_FILES)
    if source is None:
        raise DataError(
            f"{path} is a folder without interactions.csv, .tsv, .json, .parquet or an .inter file",
            hint="name the file of interactions itself, or call it interactions.csv",
        )
    items = options.items or (_first_of(folder, _ITEM_FILES) if folder is not None else None)
    groups = _first_of(folder, _USER_FILES) if folder is not None else None
    interactions = read_interactions(source, items=items, options=options, name=name)
    demographics = align_groups(read_groups(groups), interactions.users) if groups is not None else {}
    return replace(interactions, demographics=demographics)


def read_groups(path: Path) -> pl.DataFrame:
    """Read users.dat, u.user or a table with a user column and gender or age, for the report's fairness tables.

    Groups are coarse and nothing is ever trained on them. Zip codes, occupations and exact ages are not kept.

    Returns
    -------
    polars.DataFrame
        String columns `user`, `gender`, `age`; "unknown" where a field is empty or unreadable.

    Raises
    ------
    DataError
        If the file cannot be read or has no user column.
    """
    table = read_table(path).frame
    user = find_column(table.columns, f"{ROLE_NAMES['user']} id")
    if user is None:
        raise DataError(f"{path.name}: no column looks like the user", hint="call the column user")
    groups = {"user": as_text(table[user])}
    gender, age = (find_column(table.columns, ROLE_NAMES[role]) for role in ("gender", "age"))
    if gender is not None:
        groups["gender"] = as_text(table[gender]).replace("", "unknown")
    if age is not None:
        groups["age"] = _age_bands(as_text(table[age]))
    return pl.DataFrame(groups).unique("user", keep="first", maintain_order=True)


def align_groups(groups: pl.DataFrame, users: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group of each of these users, in this order; "unknown" for users that the table lacks."""
    aligned = pl.DataFrame({"user": pl.Series(users, dtype=pl.String)}).join(
        groups, on="user", how="left", maintain_order="left"
    )
    return {name: tuple(aligned[name].fill_null("unknown").to_list()) for name in groups.columns if name != "user"}


def _age_bands(ages: pl.Series) -> pl.Series:
    """Age bands: numbers are banded, bands stay as they are."""
    years = ages.cast(pl.Float64, strict=False)
    number = years.fill_null(-1.0).to_numpy()
    at = np.searchsorted(_BAND_STARTS, number, side="right") - 1
    banded = [
        _BANDS[band] if value >= 0 else text if text in _BANDS else "unknown"
        for band, value, text in zip(at.tolist(), number.tolist(), ages.to_list(), strict=True)
    ]
    return pl.Series("age", banded, dtype=pl.String)


def _first_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first file of these names, which may be patterns; a RecBole folder has one of each kind."""
    found = (path for name in names for path in ([folder / name] if "*" not in name else sorted(folder.glob(name))))
    return next((path for path in found if path.is_file()), None)


def _plain_name(path: Path) -> str:
    """File or folder name without its suffixes."""
    name = path.resolve().name
    for suffix in (".gz", ".zip", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".inter", ".dat", ".data"):
        name = name.removesuffix(suffix)
    return name or "data"


def _unknown(spec: str) -> DataError:
    if spec.startswith(IN_MEMORY):
        return DataError(
            f"{spec} was a frame in memory, and is not in this process",
            hint="load the same frame with palate.load in Python, and continue from there",
        )
    near = difflib.get_close_matches(spec, PRESETS.names, n=1)
    hint = f"did you mean {near[0]}? palate data list shows all" if near else "palate data list shows the names"
    return DataError(f"no dataset, file or folder called {spec!r}", hint=hint)
