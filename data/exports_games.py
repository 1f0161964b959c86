"""Exports of those who play: Steam."""

from __future__ import annotations

import polars as pl

from palate.data.importers import Importer, unless, values_of

STEAM = Importer(
    name="steam",
    description="Steam library",
    needs=frozenset({"appid", "name", "playtime_forever"}),
    inside=("*steam*.json", "*steam*.csv", "*ownedgames*.json"),
    left_out={"never played": pl.col("playtime_forever").cast(pl.Float64, strict=False) == 0},
    convert=lambda frame: frame.select(
        pl.col("name").alias("title"),
        unless(values_of(frame, "rtime_last_played"), "0").alias("time"),
    ),
)
"""A Steam library as JSON or CSV: appid, name, playtime_forever in minutes, rtime_last_played in seconds since 1970.

It is the answer of IPlayerService/GetOwnedGames with include_appinfo (partner.steamgames.com/doc/webapi/
IPlayerService), as tools save it. The number of an app is no key that other catalogues have: titles alone are matched.
"""
