"""Lengths of time: one spelling is read, and written as it is read."""

from __future__ import annotations

import pytest

from palate.errors import ConfigError
from palate.privacy.durations import duration_words, parse_duration, write_duration


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("36h", 129_600, "36h"),
        ("30d", 2_592_000, "30d"),
        ("2w", 1_209_600, "14d"),
        (" 24H ", 86_400, "1d"),
        ("life", 0, "life"),
    ],
)
def test_a_length_of_time_is_read_and_written(text, seconds, written):
    assert (parse_duration(text), write_duration(seconds)) == (seconds, written)
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "1y", "9999999d", "life!"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ConfigError, match="no length of time"):
        parse_duration(text)


def test_a_length_of_time_reads_well_in_a_sentence():
    assert [duration_words(hours * 3600) for hours in (1, 24, 36, 720)] == ["1 hour", "1 day", "36 hours", "30 days"]
