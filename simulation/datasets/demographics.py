"""Coarse groups of users (gender, age band) for the report's fairness tables; nothing is ever trained on them.

Zip codes, occupations and exact ages are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.tables import read_table
from palate.data.values import ROLE_NAMES, as_text, find_column
from palate.errors import DataError

# GroupLens' own bands in users.dat; exact ages (u.user) are put into the same bands.
_BANDS = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
_BAND_STARTS = np.array([0, 18, 25, 35, 45, 50, 56])


def read_groups(path: Path) -> pl.DataFrame:
    """Read users.dat, u.user or a table with a user column and gender or age.

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
        groups["age"] = _band(as_text(table[age]))
    return pl.DataFrame(groups).unique("user", keep="first", maintain_order=True)


def align_groups(groups: pl.DataFrame, users: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group of each of these users, in this order; "unknown" for users that the table lacks."""
    aligned = pl.DataFrame({"user": pl.Series(users, dtype=pl.String)}).join(
        groups, on="user", how="left", maintain_order="left"
    )
    return {name: tuple(aligned[name].fill_null("unknown").to_list()) for name in groups.columns if name != "user"}


def _band(ages: pl.Series) -> pl.Series:
    """Age bands: numbers are banded, bands stay as they are."""
    years = ages.cast(pl.Float64, strict=False)
    number = years.fill_null(-1.0).to_numpy()
    at = np.searchsorted(_BAND_STARTS, number, side="right") - 1
    banded = [
        _BANDS[band] if value >= 0 else text if text in _BANDS else "unknown"
        for band, value, text in zip(at.tolist(), number.tolist(), ages.to_list(), strict=True)
    ]
    return pl.Series("age", banded, dtype=pl.String)
