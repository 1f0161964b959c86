"""Leave-one-out: the newest interaction is the test item, the second-newest validation (He et al. 2017, section 4.1).

Each held-out item is ranked against fixed negatives drawn without replacement from the items that the
user has never interacted with. They are used only for evaluation: training draws its own and must not know these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.data.files import read_bytes
from palate.data.interactions import Interactions
from palate.errors import DataError
from palate.models.arrays import Int32Array, Int64Array
from palate.models.histories import Histories

NCF_PROTOCOL = "NCF's own held-out items and negatives"
_NCF_FILES = ("test.rating", "test.negative")
_NCF_PREFIXES = ("ncf-ml-1m.", "ml-1m.")
_NCF_SIZE = (6040, 3706, 1_000_209)


@dataclass(frozen=True)
class HeldOut:
    """One held-out item per user and its fixed negatives.

    Attributes
    ----------
    item
        The item to be found, int32 [num_users]; -1 where the user has too short a history.
    negatives
        Items it is ranked against in the sampled protocol, int32 [num_users, num_negatives].
    """

    item: Int32Array
    negatives: Int32Array


@dataclass(frozen=True)
class Split:
    """Leave-one-out: newest interaction is the test item, second-newest validation, the rest is training.

    A user with two interactions has a test item but no validation item; with one, training only.
    Each round trains on `train`. Validation ranks with `train` as the history; test ranks with
    `train` plus the validation item, as a device that has lived until then would.
    """

    train: Histories
    validation: HeldOut
    test: HeldOut
    num_items: int

    @property
    def full_train(self) -> Histories:
        """Everything before the test item: training plus validation."""
        return self.train.append(self.validation.item)


def split_for(interactions: Interactions, *, num_negatives: int = 99, seed: int) -> tuple[Split, str]:
    """Split by NCF's files if they are in the folder of the whole MovieLens 1M, otherwise leave one out.

    Returns
    -------
    tuple
        The split, and the protocol in words for the report.

    Raises
    ------
    DataError
        As `leave_one_out` and `ncf_ml1m`.
    """
    folder = _ncf_folder(interactions)
    if folder is not None:
        return ncf_ml1m(interactions, folder, seed=seed), protocol_for(interactions)
    split = leave_one_out(interactions, num_negatives=num_negatives, seed=seed)
    drawn = split.test.negatives.shape[1]
    return split, f"{protocol_for(interactions)}, {drawn} negatives"


def protocol_for(interactions: Interactions) -> str:
    """Name the protocol that `split_for` will use, without splitting."""
    if _ncf_folder(interactions) is not None:
        return NCF_PROTOCOL
    if interactions.has_time:
        return "leave-one-out by time"
    return "leave-one-out at random (no time known)"


def leave_one_out(interactions: Interactions, *, num_negatives: int = 99, seed: int) -> Split:
    """Hold out the newest and second-newest interaction of each user.

    Where no time is known, a file's order may say anything (sorted ids, parts put end to end); there each history is
    shuffled first, by the seed, so that the held-out items are a fair draw. Users with two interactions have a test
    item only, users with one or with the whole catalogue are training only.

    Parameters
    ----------
    interactions
        Sorted by user, oldest first.
    num_negatives
        Negatives for each held-out item; fewer where some user has not that many unseen items.
    seed
        Of the negatives, and of the order where none is known.

    Raises
    ------
    DataError
        If nothing can be held out.
    """
    rows = _histories(interactions)
    if not interactions.has_time:
        draws = np.random.default_rng(seed).random(len(rows.items))
        rows = Histories(rows.indptr, rows.items[np.lexsort((draws, rows.owners))])
    unseen = interactions.num_items - rows.lengths
    tested = (rows.lengths >= 2) & (unseen >= 1)
    if not tested.any():
        raise DataError(
            f"{interactions.name}: no user has 2 interactions and an item left to rank against",
            hint="more users, more items, or lower --min-user",
        )
    position = np.where(tested, rows.indptr[1:] - 1, -1)
    return _hold_out(rows, position, interactions.num_items, num_negatives, seed, test_negatives=None)


def ncf_ml1m(interactions: Interactions, folder: Path, *, seed: int = 0) -> Split:
    """Reproduce the NCF paper's test items and negatives for MovieLens 1M exactly.

    156 of the published negatives are the user's own test item; they are kept, for comparison with published tables.
    The validation item is the newest of the rest; its negatives are drawn.

    Parameters
    ----------
    interactions
        The whole of MovieLens 1M, users and items numbered by first appearance.
    folder
        Holds ml-1m.test.rating and ml-1m.test.negative (or ncf-ml-1m.*), plain or gzipped.
    seed
        Of the validation negatives.

    Raises
    ------
    DataError
        If the files are missing or damaged, or the interactions are not the whole of MovieLens 1M.
    """
    files = _ncf_files(folder)
    if files is None:
        raise DataError(f"{folder} lacks NCF's ml-1m.test.rating and ml-1m.test.negative", hint="see docs/data.md")
    rows = _histories(interactions)
    rating = _integers(files[0], columns=4)  # user, item, rating, time
    negative = _integers(files[1], columns=101)  # user, item, 99 negatives
    users = np.arange(interactions.num_users)
    if (
        (interactions.num_users, interactions.num_items, len(interactions.item)) != _NCF_SIZE
        or not np.array_equal(rating[:, 0], users)
        or not np.array_equal(rating[:, :2], negative[:, :2])
        or negative.min() < 0
        or negative[:, 1:].max() >= interactions.num_items
    ):
        raise DataError(
            f"NCF's held-out files do not fit {interactions.name} "
            f"({interactions.num_users} users, {interactions.num_items} items)",
            hint="they belong to the unfiltered MovieLens 1M; leave out the cleaning options",
        )
    key = rows.owners.astype(np.int64) * interactions.num_items + rows.items
    by_key = np.argsort(key)
    wanted = users * interactions.num_items + rating[:, 1]
    found = by_key[np.minimum(np.searchsorted(key[by_key], wanted), len(key) - 1)]
    if not np.array_equal(key[found], wanted):
        raise DataError("NCF's test items are not in this MovieLens 1M", hint="the interactions' rows may be reordered")
    return _hold_out(rows, found, interactions.num_items, 99, seed, test_negatives=negative[:, 2:].astype(np.int32))


def draw_negatives(
    rows: Histories, users: Int64Array, num_items: int, count: int, rng: np.random.Generator
) -> Int32Array:
    """Distinct unseen items for each user, uniformly: Floyd's sampling of ranks, then the rank-th unseen item.

    Parameters
    ----------
    rows
        Everything that each user has interacted with, without repeats.
    users
        Whom to draw for, int64 [m]; each must have at least `count` unseen items.
    num_items
        Size of the catalogue.
    count
        Items to draw for each.
    rng
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        int32 [m, count].
    """
    seen = rows.select(users)
    unseen = num_items - seen.lengths  # [m]
    ranks = np.empty((len(users), count), dtype=np.int64)
    for drawn in range(count):  # Bentley & Floyd 1987: one comparison with what is drawn keeps the set uniform
        top = unseen - count + drawn
        rank = rng.integers(0, top + 1)
        repeated = (ranks[:, :drawn] == rank[:, None]).any(axis=1)
        ranks[:, drawn] = np.where(repeated, top, rank)
    # The j-th smallest seen item s_j has s_j - j unseen items below it, so the rank-th unseen item is
    # rank + |{j : s_j - j <= rank}|. One search serves all users: each owns a stretch of the number line.
    owner = np.repeat(np.arange(len(users)), seen.lengths)
    order = np.lexsort((seen.items, owner))
    within = np.arange(len(order)) - np.repeat(seen.indptr[:-1], seen.lengths)
    below = seen.items[order] - within + owner * (num_items + 1)
    stretch = np.arange(len(users)) * (num_items + 1)
    passed = np.searchsorted(below, ranks + stretch[:, None], side="right") - seen.indptr[:-1, None]
    return (ranks + passed).astype(np.int32)


def _hold_out(
    rows: Histories,
    test: Int64Array,
    num_items: int,
    num_negatives: int,
    seed: int,
    *,
    test_negatives: Int32Array | None,
) -> Split:
    """Split at the test positions (-1: none); validation is the newest of the rest where two or more remain."""
    rng = np.random.default_rng(seed)
    validation = np.where(test == rows.indptr[1:] - 1, test - 1, rows.indptr[1:] - 1)
    validation = np.where((test >= 0) & (rows.lengths >= 3), validation, -1)
    kept = np.ones(len(rows.items), dtype=bool)
    kept[test[test >= 0]] = False
    kept[validation[validation >= 0]] = False
    count = int(min(num_negatives, (num_items - rows.lengths)[test >= 0].min()))

    def held_out(position: Int64Array, negatives: Int32Array | None) -> HeldOut:
        has = position >= 0
        if negatives is None:
            negatives = np.full((rows.num_users, count), -1, dtype=np.int32)
            negatives[has] = draw_negatives(rows, np.flatnonzero(has), num_items, count, rng)
        return HeldOut(np.where(has, rows.items[position], -1).astype(np.int32), negatives)

    # Validation draws first, so that it is the same whether or not the test negatives come from a file.
    validation_part = held_out(validation, None)
    return Split(
        Histories.grouped(rows.owners[kept], rows.items[kept], rows.num_users),
        validation_part,
        held_out(test, test_negatives),
        num_items,
    )


def _histories(interactions: Interactions) -> Histories:
    return Histories.grouped(interactions.user, interactions.item, interactions.num_users)


def _ncf_folder(interactions: Interactions) -> Path | None:
    whole = (interactions.num_users, interactions.num_items, len(interactions.item)) == _NCF_SIZE
    if not whole or not interactions.source:
        return None
    folder = Path(interactions.source).parent
    return folder if _ncf_files(folder) is not None else None


def _ncf_files(folder: Path) -> tuple[Path, Path] | None:
    found = []
    for name in _NCF_FILES:
        candidates = [folder / f"{prefix}{name}{suffix}" for prefix in _NCF_PREFIXES for suffix in ("", ".gz")]
        found += [path for path in candidates if path.is_file()][:1]
    return (found[0], found[1]) if len(found) == len(_NCF_FILES) else None


def _integers(path: Path, *, columns: int) -> Int64Array:
    """Whitespace-separated integers, "(user,item)" pairs included, int64 [num_users, columns]."""
    text = read_bytes(path).translate(bytes.maketrans(b"(),", b"   "))
    try:
        return np.array(text.split(), dtype=np.int64).reshape(-1, columns)
    except ValueError as error:
        raise DataError(f"{path.name} is damaged: not {columns} integers a line", hint="copy it again") from error
