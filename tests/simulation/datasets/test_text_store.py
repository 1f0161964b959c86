"""Embeddings are made once, kept whole, and made again when they are damaged."""

import numpy as np
import pytest

from palate.errors import EnvironmentProblem
from palate.simulation.datasets.text_store import embeddings_of, path_of

TEXTS = ("Heat", "", "Alien", "Heat", "The Thing. Snow.")


class Counting:
    """An encoder that counts what it reads."""

    name = "counting"

    def __init__(self):
        self.read = []

    def encode(self, texts):
        self.read += texts
        return np.array([[len(text), sum(map(ord, text)), 1.0] for text in texts], dtype=np.float32)


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    return Counting()


def made(encoder, texts=TEXTS, version="counting 1", **more):
    return embeddings_of(texts, open_model=lambda: encoder, version=version, **more)


def test_every_text_is_read_once_and_goes_to_its_place(encoder):
    found = made(encoder)
    assert sorted(encoder.read) == ["", "Alien", "Heat", "The Thing. Snow."]
    np.testing.assert_array_equal(found[:, 0], [len(text) for text in TEXTS])
    np.testing.assert_array_equal(found[0], found[3])


def test_what_is_kept_is_not_read_again_and_is_the_same(encoder):
    first = made(encoder)
    np.testing.assert_array_equal(embeddings_of(TEXTS, open_model=pytest.fail, version="counting 1"), first)


@pytest.mark.parametrize("change", [{"version": "counting 2"}, {"texts": TEXTS[::-1]}, {"texts": (*TEXTS[:4], "x")}])
def test_another_encoder_or_other_texts_are_read_anew(encoder, change):
    made(encoder)
    before = len(encoder.read)
    made(encoder, **change)
    assert len(encoder.read) > before


@pytest.mark.parametrize("where", ["first byte", "last byte", "half", "nothing", "other texts"])
def test_a_damaged_file_is_made_again(encoder, where):
    first, path = made(encoder), path_of(TEXTS, "counting 1")
    good = path.read_bytes()
    made(encoder, TEXTS[::-1])
    damaged = {
        "first byte": b"\xff" + good[1:],
        "last byte": good[:-1] + bytes([good[-1] ^ 1]),
        "half": good[: len(good) // 2],
        "nothing": b"",
        "other texts": path_of(TEXTS[::-1], "counting 1").read_bytes(),
    }[where]
    path.write_bytes(damaged)
    encoder.read.clear()
    np.testing.assert_array_equal(made(encoder), first)
    assert encoder.read
    np.testing.assert_array_equal(embeddings_of(TEXTS, open_model=pytest.fail, version="counting 1"), first)
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_costs_time_only(encoder, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    np.testing.assert_array_equal(made(encoder)[:, 0], [len(text) for text in TEXTS])


def test_reading_says_how_far_it_is(encoder):
    said = []
    made(encoder, tuple(f"title {index}" for index in range(600)), phase=said.append)
    assert len(said) == 3
    assert said[1].endswith("256 of 600")


def test_a_missing_encoder_is_an_error_only_where_something_must_be_read(encoder):
    def missing():
        raise EnvironmentProblem("not installed")

    with pytest.raises(EnvironmentProblem):
        embeddings_of(TEXTS, open_model=missing, version="counting 1")
    made(encoder)
    embeddings_of(TEXTS, open_model=missing, version="counting 1")
