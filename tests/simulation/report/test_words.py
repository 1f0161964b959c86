"""Numbers as people read them."""

from __future__ import annotations

import pytest

from palate.simulation.report import words


@pytest.mark.parametrize(
    ("share", "expected"), [(0.766, "77%"), (0.1, "10%"), (0.0412, "4.1%"), (0.0, "0%"), (1.0, "100%")]
)
def test_a_share_keeps_a_decimal_only_where_it_is_small(share: float, expected: str):
    assert words.percent(share) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (476_000, "465 KiB"), (3 * 2**40, "3.0 TiB")],
)
def test_sizes_keep_a_short_number(num_bytes: int, expected: str):
    assert words.data_size(num_bytes) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.04, "40 ms"), (1.58, "1.6 s"), (300, "5.0 min")])
def test_durations_keep_a_short_number(seconds: float, expected: str):
    assert words.duration(seconds) == expected


def test_a_small_p_value_is_bounded_and_a_difference_carries_its_sign():
    assert words.p_value(0.0002) == "< 0.001"
    assert words.p_value(0.04) == "0.040"
    assert words.signed(-0.012) == "\N{MINUS SIGN}0.012"
    assert words.signed(0.012) == "+0.012"


def test_a_configuration_flattens_to_dotted_names():
    flat = words.flattened({"data": "demo", "training": {"dim": 4, "names": ["a", "b"]}})
    assert flat == {"data": "demo", "training.dim": "4", "training.names": "a, b"}


@pytest.mark.parametrize(
    ("config", "has_time", "said"),
    [
        ({"training": {"recency_half_life": 10.0}}, True, "counts half after 10 newer ones"),
        ({"training": {"recency_half_life": float("inf")}}, True, "ignored the order"),
        ({"training": {"recency_half_life": 10.0}}, False, "ignored the order"),
        ({}, True, "may use the order of a history; so do the references whose names end in"),
    ],
)
def test_the_use_of_order_is_said_as_it_was(config: dict[str, object], has_time: bool, said: str):
    assert said in words.recency_note(config, has_time=has_time)


@pytest.mark.parametrize(("key", "name"), [("hr@10", "HR@10"), ("recall@20", "Recall@20"), ("mrr", "MRR")])
def test_metrics_are_named_as_in_published_tables(key: str, name: str):
    assert words.metric_name(key) == name
