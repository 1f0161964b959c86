"""The demo: the same everywhere, believable, and worth more than popularity."""

import hashlib

import numpy as np
import pytest

from palate.simulation.datasets.demo import demo_catalogue_and_rows
from palate.simulation.datasets.presets import load
from palate.simulation.datasets.splits import leave_one_out


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def test_demo_is_the_same_on_every_machine():
    catalogue, raw = demo_catalogue_and_rows()
    rows = raw.frame.select("user", "item", "moment").write_csv()
    facts = "\n".join((*catalogue.titles, *catalogue.texts, *map(str, catalogue.years.tolist())))
    assert (
        hashlib.sha256((rows + facts).encode()).hexdigest()
        == "4aadc6676ce8677bccc5b69367c0c6f7502e0d4f26798f1fa8512f627980af1a"
    )


def test_another_seed_makes_other_viewers():
    assert not demo_catalogue_and_rows(8)[1].frame.equals(demo_catalogue_and_rows(7)[1].frame)


def test_films_are_unique_and_fully_described(demo):
    catalogue = demo.catalogue
    assert demo.num_users == 2000
    assert demo.num_items == 700
    assert len(set(catalogue.titles)) == 700
    assert all(1 <= len(genres) <= 2 for genres in catalogue.genres)
    assert all(tuple(sorted(genres)) == genres for genres in catalogue.genres)
    assert all(text.startswith("A ") and text.endswith(".") for text in catalogue.texts)
    assert catalogue.years.min() >= 1950
    assert catalogue.years.max() <= 2024
    assert all(f"({year})" in title for title, year in zip(catalogue.titles, catalogue.years.tolist(), strict=True))


def test_nobody_watches_a_film_before_it_is_made(demo):
    _, raw = demo_catalogue_and_rows()
    year = dict(zip(demo.catalogue.ids, demo.catalogue.years.tolist(), strict=True))
    watched = 2021 + (raw.frame["moment"].to_numpy() - 1_609_459_200) // (365 * 86_400)
    assert all(year[item] <= when for item, when in zip(raw.frame["item"].to_list(), watched.tolist(), strict=True))


def test_activity_and_popularity_have_long_tails(demo):
    activity = np.bincount(demo.user)
    popularity = np.sort(np.bincount(demo.item))[::-1]
    assert activity.min() >= 10
    assert activity.max() >= 5 * np.median(activity)
    assert popularity[0] >= 10 * np.median(popularity)
    assert 0.3 <= popularity[:70].sum() / popularity.sum() <= 0.6


def sampled_hit_rate(scores, held_out):
    users = np.arange(len(scores))
    rank = (scores[users[:, None], held_out.negatives] >= scores[users, held_out.item][:, None]).sum(axis=1)
    return (rank < 10).mean()


def test_collaborative_filtering_clearly_beats_popularity(demo):
    split = leave_one_out(demo, seed=1)
    history = split.full_train
    seen = np.zeros((demo.num_users, demo.num_items), dtype=np.float32)
    seen[history.owners, history.items] = 1
    popularity = sampled_hit_rate(np.broadcast_to(seen.sum(axis=0), seen.shape), split.test)
    inverse = np.linalg.inv(seen.T @ seen + 500 * np.eye(demo.num_items, dtype=np.float32))  # EASE (Steck 2019)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    assert 0.35 <= popularity <= 0.5
    assert sampled_hit_rate(seen @ weights, split.test) >= popularity + 0.15


def test_tastes_drift(demo):
    # How far apart are the genres of a viewer's oldest and newest seven films, against two sevens drawn at random?
    names = sorted({genre for genres in demo.catalogue.genres for genre in genres})
    content = np.array([[genre in genres for genre in names] for genres in demo.catalogue.genres], dtype=float)
    starts = np.flatnonzero(np.diff(demo.user, prepend=-1))
    ends = np.append(starts[1:], len(demo.user))
    rng = np.random.default_rng(0)
    apart = {"in time": [], "at random": []}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        films = demo.item[start:end]
        for kind, order in (("in time", films), ("at random", rng.permutation(films))):
            early, late = content[order[:7]].mean(axis=0), content[order[-7:]].mean(axis=0)
            apart[kind].append(np.abs(early - late).sum())
    assert np.mean(apart["in time"]) > 1.1 * np.mean(apart["at random"])
