"""The sentence encoder: what it reads, and that it reads nothing but the published model."""

import sys

import numpy as np
import pytest

from palate.data import text
from palate.data.text import DECIMALS, SentenceEncoder, is_installed, open_encoder, sentences
from palate.errors import EnvironmentProblem

installed = pytest.mark.skipif(not is_installed(), reason="palate[text] is not installed")


def test_a_title_is_read_without_its_year_and_with_its_article_in_front():
    titles = ["Toy Story (1995)", "Matrix, The (1999)", "2001: A Space Odyssey", "Heat (Director's cut)"]
    read = sentences(titles, [""] * 4)
    assert read == ("Toy Story", "The Matrix", "2001: A Space Odyssey", "Heat (Director's cut)")


def test_a_description_follows_the_title_unless_it_is_the_title_again():
    assert sentences(["Heat", "LUGGAGE TAG"], ["A cop and a thief.", "LUGGAGE TAG "]) == (
        "Heat. A cop and a thief.",
        "LUGGAGE TAG",
    )


@pytest.mark.parametrize("nothing", ["", "  ", "1002", "B000GKYN0Q", "(1995)", "#7"])
def test_what_holds_no_word_is_not_read(nothing):
    assert sentences([nothing], [""]) == ("",)


class Letters:
    """A tokeniser and a model of one: a text's vector counts its letters."""

    def encode_batch(self, texts):
        class Encoded:
            def __init__(self, ids):
                self.ids = ids

        return [Encoded([ord(letter) for letter in each]) for each in texts]

    def embed(self, tokens):
        return np.array([[len(own), sum(own) / 7, *[0] * 382] for own in tokens], dtype=np.float32)


def test_blank_texts_are_zeros_and_the_rest_keep_their_places():
    found = SentenceEncoder(Letters(), Letters()).encode(["ab", " ", "", "abc"])
    assert found.shape == (4, 384)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], [2, 0, 0, 3])
    assert not found[1:3].any()
    assert SentenceEncoder(Letters(), Letters()).encode(["", " "]).shape == (2, 384)


def test_vectors_are_rounded_so_that_processors_agree():
    found = SentenceEncoder(Letters(), Letters()).encode(["ab"])[0, 1]
    assert found == np.float32(round(195 / 7, DECIMALS))


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)
    open_encoder.cache_clear()
    with pytest.raises(EnvironmentProblem, match="not installed") as refused:
        open_encoder()
    assert "palate[text]" in refused.value.hint


@pytest.mark.parametrize("damaged", [b"", b"weights of somebody else"])
def test_files_that_are_not_the_published_ones_are_refused(tmp_path, damaged):
    (tmp_path / "model.safetensors").write_bytes(damaged)
    with pytest.raises(EnvironmentProblem, match=text.WEIGHTS_SHA256[:12]):
        text._verified(tmp_path / "model.safetensors", text.WEIGHTS_SHA256)
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        text._verified(tmp_path / "tokenizer.json", text.TOKENIZER_SHA256)


def test_to_ask_whether_it_is_installed_loads_nothing():
    before = set(sys.modules)
    is_installed()
    assert not {name for name in set(sys.modules) - before if "minilm" in name or "tokenizers" in name}


@installed
def test_the_model_gives_the_vectors_that_its_authors_publish():
    """First values of the model card's two example sentences, from sentence-transformers."""
    open_encoder.cache_clear()
    found = open_encoder().encode(["This is an example sentence", "Each sentence is converted"])
    published = [[0.0676569, 0.0634959, 0.0487131, 0.0793050, 0.0374480], [0.0864386, 0.1027626, 0.0053946]]
    for row, values in zip(found, published, strict=True):
        np.testing.assert_allclose(row[: len(values)], values, atol=2e-5)


@installed
def test_what_means_the_same_lies_nearer_than_what_shares_words():
    asked, heist, bird = open_encoder().encode(
        ["a robbery that goes wrong", "Six strangers plan to steal a painting, and fail", "A robin that goes south"]
    )
    assert asked @ heist > asked @ bird + 0.1


@installed
def test_the_packages_own_code_is_never_run():
    open_encoder.cache_clear()
    open_encoder()
    assert text._PACKAGE not in sys.modules
    assert "sentence_transformers" not in sys.modules
