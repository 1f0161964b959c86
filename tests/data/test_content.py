"""Public content columns: what is made, what is dropped, and that the same input gives the same numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.content import TEXT_SCALE, content_features, tf_idf
from palate.errors import ConfigError


@pytest.fixture
def everything(monkeypatch):
    """However few items an indicator splits off, it is kept."""
    monkeypatch.setattr("palate.data.content.MIN_ITEMS", 1)
    monkeypatch.setattr("palate.data.content.MIN_SHARE", 0.0)


def films():
    genres = [("Comedy",), ("Comedy", "War"), ("War",), ("Drama",), (), ("Drama",)] * 3
    years = np.array([1972, 1978, 1985, 1994, 0, 1999] * 3)
    texts = ["a happy tale", "soldiers laugh", "soldiers march", "tears at home", "", "tears and a tale"] * 3
    return {"genres": genres, "years": years, "texts": texts}


def test_names_say_in_words_what_the_columns_hold(everything):
    names = content_features(**films()).names
    assert names[:3] == ("genre: Comedy", "genre: Drama", "genre: War")
    assert "decade: 1970s" in names
    assert "year: 1999" in names
    assert "genre: War, after 1985" not in names, "no war film is newer than the median year"
    assert names[-1].startswith("text ")


def test_a_genre_column_is_its_indicator_less_its_share(everything):
    content = content_features(**films())
    column = content.columns[:, content.names.index("genre: Comedy")]
    expected = np.array([1, 1, 0, 0, 0, 0] * 3) - 1 / 3
    np.testing.assert_allclose(column, expected, atol=1e-6)


def test_an_era_column_splits_its_genre_at_the_median_year(everything):
    data = {"genres": [("War",)] * 4 + [()] * 2, "years": np.array([1950, 1960, 1980, 1990, 0, 0]), "texts": [""] * 6}
    content = content_features(**data)
    column = content.columns[:, content.names.index("genre: War, after 1970")]
    np.testing.assert_allclose(column > 0, [False, False, True, True, False, False])


def test_columns_are_centred_float32_and_text_has_the_asked_size(everything):
    content = content_features(**films())
    assert content.columns.dtype == np.float32
    np.testing.assert_allclose(content.columns.mean(axis=0), 0.0, atol=1e-6)
    text = content.columns[:, [name.startswith("text") for name in content.names]]
    assert np.sqrt(np.mean(text**2)) == pytest.approx(TEXT_SCALE, rel=1e-5)


def test_a_column_that_splits_off_too_few_items_is_dropped():
    data = {"genres": [("Rare",)] * 4 + [("Usual",)] * 46, "years": np.zeros(50, dtype=int), "texts": [""] * 50}
    assert content_features(**data).names == ()
    data["genres"][4] = ("Rare",)
    assert content_features(**data).names == ("genre: Rare", "genre: Usual")


def test_a_genre_of_every_item_says_nothing_and_is_dropped():
    data = {"genres": [("Film",)] * 20, "years": np.zeros(20, dtype=int), "texts": [""] * 20}
    assert content_features(**data).names == ()


@pytest.mark.parametrize("num_items", [0, 1, 7])
def test_items_about_which_nothing_is_known_get_no_columns(num_items):
    nothing = {"genres": [()] * num_items, "years": np.zeros(num_items, dtype=int), "texts": [""] * num_items}
    content = content_features(**nothing, titles=[""] * num_items)
    assert content.columns.shape == (num_items, 0)


def test_titles_are_read_only_where_they_are_all_there_is_or_join_a_text():
    titles = ["red lamp", "red box", "blue lamp", "blue box"] * 3
    plain = {"years": np.zeros(12, dtype=int), "texts": [""] * 12}
    assert content_features(genres=[()] * 12, titles=titles, **plain).names
    with_genres = content_features(genres=[("A",), ("B",)] * 6, titles=titles, **plain)
    assert with_genres.names == ("genre: A", "genre: B")


def test_texts_that_share_words_are_closer_than_texts_that_do_not():
    texts = ["red glass lamp", "blue glass lamp", "tin soldier drum", "tin soldier flag"] * 3
    content = content_features(genres=[()] * 12, years=np.zeros(12, dtype=int), texts=texts)
    lamps, mixed = content.columns[0] @ content.columns[1], content.columns[0] @ content.columns[2]
    assert lamps > 0 > mixed


def test_the_same_input_gives_the_same_bits_and_reversed_items_the_same_columns():
    data = films()
    first, second = content_features(**data), content_features(**data)
    assert first.columns.tobytes() == second.columns.tobytes()
    backwards = content_features(**{name: values[::-1] for name, values in data.items()})
    assert backwards.names == first.names
    np.testing.assert_allclose(backwards.columns[::-1], first.columns, atol=1e-5)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=12), st.integers(0, 4))
def test_any_text_gives_finite_centred_columns(texts, text_dim):
    content = content_features(
        genres=[()] * len(texts),
        years=np.zeros(len(texts), dtype=int),
        texts=texts,
        text_dim=text_dim,
    )
    assert np.isfinite(content.columns).all()
    assert content.columns.shape[1] <= text_dim
    np.testing.assert_allclose(content.columns.sum(axis=0), 0.0, atol=1e-4)


def test_tf_idf_of_a_small_collection_by_hand():
    weights = tf_idf(["Cat, cat! Dog", "cat bird", "dog 1999"]).toarray()
    # Shared words: cat (in 2 of 3) and dog (in 2 of 3); bird is one item's own, and 1999 is no word.
    idf = np.log(4 / 3) + 1
    row = np.array([(1 + np.log(2)) * idf, idf])
    np.testing.assert_allclose(weights, [row / np.linalg.norm(row), [1, 0], [0, 1]])


def test_codes_that_stand_in_for_titles_are_no_words():
    titles = [f"B000{letters}7{letters}" for letters in ("ABC", "ABC", "XYZ", "XYZ")] * 5
    content = content_features(genres=[()] * 20, years=np.zeros(20, dtype=int), texts=[""] * 20, titles=titles)
    assert content.names == ()


def test_underscores_and_hyphens_separate_words():
    assert tf_idf(["red_lamp", "t-light RED", "light LAMP"]).shape == (3, 3)


def test_inputs_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match="2 years for 1 items"):
        content_features(genres=[()], years=np.zeros(2, dtype=int), texts=[""])


def vectors(num_items, width=12, seed=1):
    return np.random.default_rng(seed).normal(size=(num_items, width)).astype(np.float32)


def bare(num_items, **more):
    return {"genres": [()] * num_items, "years": np.zeros(num_items, dtype=int), "texts": [""] * num_items, **more}


def test_embeddings_become_their_principal_components():
    """Against numpy's SVD: the same subspace, the same distances up to the block's scale, largest spread first."""
    given = vectors(30)
    content = content_features(**bare(30), embeddings=given, text_dim=4)
    assert content.names == ("text 1", "text 2", "text 3", "text 4")
    left, values, _ = np.linalg.svd(given - given.mean(axis=0), full_matrices=False)
    scores = left[:, :4] * values[:4]
    expected = scores * (0.3 / np.sqrt(np.mean(scores**2)))  # nothing beside the text
    np.testing.assert_allclose(np.abs(content.columns), np.abs(expected), atol=2e-5)


def test_embeddings_beside_genres_are_scaled_down():
    beside = content_features(
        genres=[("A",), ("B",)] * 15, years=np.zeros(30, dtype=int), texts=[""] * 30, embeddings=vectors(30)
    )
    text = beside.columns[:, [name.startswith("text") for name in beside.names]]
    assert beside.num_text == text.shape[1] == 12
    assert np.sqrt(np.mean(text**2)) == pytest.approx(0.15, rel=1e-4)


def test_an_item_without_text_is_no_particular_item():
    given = vectors(20)
    given[7] = 0
    content = content_features(**bare(20), embeddings=given)
    assert np.abs(content.columns[7]).max() < 0.1 * np.abs(content.columns).mean()


def test_given_embeddings_texts_and_titles_are_not_read():
    given = vectors(20)
    plain = content_features(**bare(20), embeddings=given)
    told = content_features(**bare(20, texts=["two words"] * 20, titles=["a title"] * 20), embeddings=given)
    np.testing.assert_array_equal(plain.columns, told.columns)


@pytest.mark.parametrize("nothing", [np.zeros((9, 5), dtype=np.float32), np.ones((9, 5), dtype=np.float32)])
def test_embeddings_that_say_nothing_make_no_column(nothing):
    content = content_features(**bare(9), embeddings=nothing)
    assert content.columns.shape == (9, 0)


def test_embeddings_of_another_catalogue_are_refused():
    with pytest.raises(ConfigError, match="8 embeddings for 9 items"):
        content_features(**bare(9), embeddings=vectors(8))
