"""Public item content as columns: genres, years and words, centred; the same for every device and free of privacy cost.

Content answers for items that nobody has had yet, and it spans the directions in which a noisy item update is most
likely to be signal. Text is TF-IDF (Salton & Buckley 1988) reduced by a truncated SVD (latent semantic analysis,
Deerwester et al. 1990); scikit-learn would do it, but thirty lines do not justify the dependency. Or it is sentence
embeddings (`palate.data.text`), reduced to their principal components.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from palate.data.catalogue import UNKNOWN_YEAR, WORD
from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float32Array, Float64Array, IntegerArray

_TEXT = "text "


TEXT_DIM = 64
"""Columns that text is reduced to, unless another number is asked for."""
TEXT_SCALE, LONE_TEXT_SCALE = 0.15, 0.3
"""Root mean square over the text columns, and over those of sentence embeddings without any genre or year beside them;
the indicator of a genre which one item in ten has is at 0.3."""
MIN_ITEMS, MIN_SHARE = 5, 0.003
"""An indicator is dropped unless it splits off at least this many items, and this share of the catalogue."""
RECENT_YEARS = 6
"""The newest years that also get a column each, besides their decade."""


@dataclass(frozen=True, eq=False)
class Content:
    """Feature matrix of the catalogue.

    Attributes
    ----------
    columns
        Centred features, float32 [num_items, k]; k = 0 when nothing is known about the items.
    names
        What each column says, in words, [k].
    """

    columns: Float32Array
    names: tuple[str, ...]

    @property
    def num_text(self) -> int:
        """How many columns are made from text; they are the last."""
        return sum(name.startswith(_TEXT) for name in self.names)


def content_features(
    *,
    genres: Sequence[Sequence[str]],
    years: IntegerArray,
    texts: Sequence[str],
    titles: Sequence[str] | None = None,
    embeddings: Float32Array | None = None,
    text_dim: int = TEXT_DIM,
) -> Content:
    """Turn what is publicly known about the items into columns.

    Genre and decade indicators stay 0 or 1 before centring, so that their weight in a ridge does not depend on
    how rare they are; text columns are scaled as one block to `TEXT_SCALE`, or to `LONE_TEXT_SCALE`.

    Parameters
    ----------
    genres
        Genre names per item, possibly none, [num_items].
    years
        Year of appearance, 0 where unknown, int [num_items].
    texts
        Description or tags, "" where unknown, [num_items].
    titles
        Titles, [num_items]; their words are read as text unless there are genres and no descriptions,
        where a title says little more than its sequel's.
    embeddings
        Sentence embeddings of titles and texts (`palate.data.text`), float32 [num_items, width], zeros where there is
        nothing to read. Given them, texts and titles themselves are not read.
    text_dim
        Columns that text is reduced to; 0 leaves text out.

    Returns
    -------
    Content
        The same input always gives the same columns.

    Raises
    ------
    ConfigError
        If the inputs disagree on the number of items.
    """
    num_items = len(genres)
    given = {"years": years, "texts": texts, "titles": titles or genres}
    given |= {} if embeddings is None else {"embeddings": embeddings}
    for name, length in ((name, len(values)) for name, values in given.items()):
        if length != num_items:
            raise ConfigError(
                f"content has {length} {name} for {num_items} items",
                hint="give one entry per item, empty where unknown",
            )
    needed = max(MIN_ITEMS, int(np.ceil(MIN_SHARE * num_items)))
    indicators = _indicators(genres, np.asarray(years), needed=needed)
    if embeddings is not None:
        scale = TEXT_SCALE if indicators else LONE_TEXT_SCALE
        text = _principal_columns(embeddings, text_dim, scale)
    else:
        words = list(texts)
        if titles is not None and (any(text.strip() for text in texts) or not any(genres)):
            words = [f"{title} {text}" for title, text in zip(titles, texts, strict=True)]
        text = _text_columns(words, text_dim, TEXT_SCALE)  # [num_items, text_dim or fewer]
    names = [*indicators, *(f"{_TEXT}{index + 1}" for index in range(text.shape[1]))]
    raw = np.column_stack([*indicators.values(), text]) if names else np.zeros((num_items, 0))
    centred = raw - raw.mean(axis=0) if num_items else raw
    return Content(np.ascontiguousarray(centred, dtype=np.float32), tuple(names))


def _indicators(genres: Sequence[Sequence[str]], years: IntegerArray, *, needed: int) -> dict[str, BoolArray]:
    """Yes-or-no columns by name, bool [num_items] each; both sides of each split have `needed` items."""
    columns: dict[str, BoolArray] = {}

    def add(name: str, inside: BoolArray, within: BoolArray) -> None:
        if min(np.count_nonzero(inside), np.count_nonzero(within & ~inside)) >= max(needed, 1):
            columns[name] = inside

    everything = np.ones(len(genres), dtype=np.bool_)
    has_genre = {
        genre: np.array([genre in own for own in genres], dtype=np.bool_)
        for genre in sorted({genre for own in genres for genre in own})
    }
    for genre, inside in has_genre.items():
        add(f"genre: {genre}", inside, everything)
    dated = years != UNKNOWN_YEAR
    if not dated.any():
        return columns
    decades = years // 10 * 10
    for decade in np.unique(decades[dated]):
        add(f"decade: {decade}s", dated & (decades == decade), everything)
    for year in np.unique(years[dated])[::-1][:RECENT_YEARS][::-1]:
        add(f"year: {year}", years == year, decades == year // 10 * 10)
    # Tastes for a genre often split by era: old and new horror have different friends.
    median = int(np.median(years[dated]))
    for genre, inside in has_genre.items():
        add(f"genre: {genre}, after {median}", inside & (years > median), inside & dated)
    return columns


def _principal_columns(embeddings: Float32Array, dim: int, scale: float) -> Float64Array:
    """Principal components of the embeddings, [num_items, k] with k <= dim; zeros where there is no text."""
    described = np.any(embeddings != 0, axis=1)
    known = embeddings[described].astype(np.float64)  # [num_described, width]
    rank = min(dim, len(known) - 1, embeddings.shape[1])
    nothing = np.zeros((len(embeddings), 0))
    if rank < 1:
        return nothing
    mean = known.mean(axis=0)
    # The width is a few hundred: its eigenvectors cost less than an SVD of the catalogue.
    variances, directions = np.linalg.eigh((known - mean).T @ (known - mean))
    order = np.argsort(-variances, kind="stable")[:rank]
    order = order[variances[order] > 1e-9 * max(variances[order[0]], 1e-30)]
    directions = directions[:, order]
    # As below: an eigenvector's sign is arbitrary, and the last bits must not reach a run.
    heaviest = np.argmax(np.round(np.abs(directions), decimals=6), axis=0)
    directions *= np.sign(directions[heaviest, np.arange(len(order))])
    size = np.sqrt(np.sum(variances[order]) / (len(embeddings) * max(len(order), 1)))  # items without text count as 0
    if size == 0:
        return nothing
    scaled = np.round(directions * (scale / size), decimals=6).astype(np.float32)
    columns = np.where(described[:, None], (embeddings - mean.astype(np.float32)) @ scaled, np.float32(0))
    return np.asarray(np.round(columns.astype(np.float64), decimals=6) + 0.0)


def _text_columns(texts: Sequence[str], dim: int, scale: float) -> Float64Array:
    """Latent semantic columns of the texts, [num_items, k] with k <= dim, k = 0 where there are too few words."""
    weights = tf_idf(texts)
    rank = min(dim, min(weights.shape) - 1)
    if rank < 1:
        return np.zeros((len(texts), 0))
    # A fixed start and fixed restarts make the Lanczos iteration repeatable.
    left, values, right = svds(weights, k=rank, v0=np.ones(min(weights.shape)), rng=np.random.default_rng(0))
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 1e-6 * values.max()]
    # A singular vector's sign is arbitrary: make the heaviest word count as positive, the first of equals.
    heaviest = np.argmax(np.round(np.abs(right[order]), decimals=6), axis=1)
    signs = np.sign(right[order, heaviest])
    columns = left[:, order] * (values[order] * signs)  # [num_items, k]
    columns -= columns.mean(axis=0)
    size = np.sqrt(np.mean(columns**2))
    if size == 0:
        return np.zeros((len(texts), 0))
    # The last bits, and the sign of zero, depend on the address of an array in memory; a run must not.
    return np.asarray(np.round(columns * (scale / size), decimals=6) + 0.0)


def tf_idf(texts: Sequence[str]) -> sparse.csr_array:
    """Weigh words by how much they tell: (1 + log tf) * (log((1 + n) / (1 + df)) + 1), rows of norm 1.

    Parameters
    ----------
    texts
        One text per item, [num_items].

    Returns
    -------
    csr_array
        float64 [num_items, vocabulary], words in alphabetical order; only words that two items share.
    """
    counts = [Counter(WORD.findall(text.lower())) for text in texts]
    frequency = Counter(word for own in counts for word in own)
    vocabulary = {word: index for index, word in enumerate(sorted(w for w, df in frequency.items() if df > 1))}
    entries = [(row, vocabulary[w], n) for row, own in enumerate(counts) for w, n in own.items() if w in vocabulary]
    rows, columns, tf = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    df = np.bincount(columns, minlength=len(vocabulary))
    idf = np.log((1.0 + len(texts)) / (1.0 + df)) + 1.0
    values = (1.0 + np.log(tf)) * idf[columns]
    norms = np.sqrt(np.bincount(rows, values**2, minlength=len(texts)))
    return sparse.csr_array((values / norms[rows], (rows, columns)), shape=(len(texts), len(vocabulary)))
