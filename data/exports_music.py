"""Exports of those who listen: Spotify and Last.fm.

A catalogue may list tracks or artists: the title is "Artist - Track", and a track alone or its artist are other titles.
"""

from __future__ import annotations

import polars as pl

from palate.data.importers import Importer, first_given, values_of

_LEAST_MS = 30_000
"""A stream counts from 30 seconds (Spotify's own rule, support.spotify.com, "How we count streams")."""


def _tracks(frame: pl.DataFrame, artist: str, track: str, time: pl.Expr, show: str = "") -> pl.DataFrame:
    """Columns of plays; `show` is the column of a podcast's name, in the rows that have no track."""
    by, named = values_of(frame, artist), values_of(frame, track)
    is_track = named != ""
    title = pl.when(is_track).then(pl.concat_str(by, pl.lit(" - "), named)).otherwise(values_of(frame, show))
    other = pl.concat_list(pl.concat_str(named, pl.lit(" - "), by), named, by)
    other = pl.when(is_track).then(other).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    return frame.select(title.alias("title"), other.alias("other"), time.alias("time"))


def _short(column: str) -> dict[str, pl.Expr]:
    return {"played for less than 30 seconds": pl.col(column).cast(pl.Float64, strict=False) < _LEAST_MS}


SPOTIFY = Importer(
    name="spotify",
    description="Spotify streaming history",
    needs=frozenset({"endTime", "artistName", "trackName", "msPlayed"}),
    inside=("streaminghistory*.json",),
    left_out=_short("msPlayed"),
    convert=lambda frame: _tracks(frame, "artistName", "trackName", pl.col("endTime")),
)
"""StreamingHistory_music_0.json of the account data, the last year (Account, Privacy): endTime, artistName, trackName,
msPlayed. support.spotify.com, "Understanding my data".
"""

SPOTIFY_EXTENDED = Importer(
    name="spotify-extended",
    description="Spotify extended streaming history",
    needs=frozenset({"ts", "ms_played", "master_metadata_track_name", "master_metadata_album_artist_name"}),
    inside=("streaming_history_audio*.json", "endsong*.json"),
    left_out=_short("ms_played"),
    convert=lambda frame: _tracks(
        frame,
        "master_metadata_album_artist_name",
        "master_metadata_track_name",
        pl.col("ts"),
        "episode_show_name",
    ),
)
"""Streaming_History_Audio_*.json of the extended streaming history (formerly endsong_*.json): ts, ms_played,
master_metadata_track_name, master_metadata_album_artist_name, episode_show_name for podcasts, and others.
support.spotify.com, "Understanding my data". Of the addresses and devices in it nothing is read.
"""

LASTFM = Importer(
    name="lastfm",
    description="Last.fm scrobbles",
    needs=frozenset({"artist", "album", "track"}),
    inside=("*lastfm*.csv", "*last.fm*.csv", "recenttracks*.csv", "scrobbles*.csv"),
    convert=lambda frame: _tracks(
        frame, "artist", "track", first_given(frame, "uts", "timestamp", "utc_time", "date", "time")
    ),
)
"""Scrobbles of Last.fm as CSV. Last.fm has no export of its own; lastfm.ghan.nl/export writes uts, utc_time, artist,
artist_mbid, album, album_mbid, track, track_mbid. Files without a header line, as of lastfm-to-csv, need
--columns artist,album,track,date.
"""
