"""Confidence: left-out scores against fits that really leave out, variances by hand, levels that rise."""

import numpy as np
import pytest

from palate.client.recommending.confidence import RECENT, Confidence, Track, confidence, left_out_scores, track_record
from palate.client.recommending.taste import fit, space_of
from palate.models.scores.registry import fitting_of
from palate.models.training import LocalTraining

from .conftest import preferences_of

CONFIG = fitting_of(LocalTraining(model="gmf", unobserved_weight=0.2, regularisation=0.5))
OWN = [4, 17, 33, 50, 51, 52, 8]


def fitted(seed: int = 0):
    rows = np.random.default_rng(seed).normal(size=(90, 6)).astype(np.float32)
    space = space_of(rows, CONFIG, popularity=0)
    return space, fit(space, preferences_of([("had", item) for item in OWN]), CONFIG)


def test_left_out_scores_are_those_of_fits_without_the_item():
    space, taste = fitted()
    wide, weights = space.rows.astype(np.float64), taste.weights
    for place, item in enumerate(OWN):
        kept = np.arange(len(OWN)) != place
        own = wide[np.array(OWN)[kept]]
        normal = 0.2 * wide.T @ wide + 0.5 * np.eye(6) + (own * weights[kept, None]).T @ own
        without = np.linalg.solve(normal, own.T @ weights[kept])
        assert left_out_scores(space, taste)[place] == pytest.approx(wide[item] @ without, abs=1e-9)


def test_the_track_counts_the_newest_items_that_reach_the_bar():
    space, taste = fitted(1)
    reference = left_out_scores(space, taste)
    for bar in (-9.0, *reference, 9.0):
        assert track_record(space, taste, float(bar)) == Track(int((reference >= bar).sum()), len(OWN))
    many = fit(space, preferences_of([("had", item) for item in range(30)]), CONFIG)
    newest = left_out_scores(space, many)[10:]
    assert track_record(space, many, 0.2) == Track(int((newest >= 0.2).sum()), RECENT)


def test_evidence_is_the_share_of_variance_that_the_history_removed():
    space, taste = fitted(2)
    wide = space.rows.astype(np.float64)
    prior = 0.2 * wide.T @ wide + 0.5 * np.eye(6)
    posterior = prior + (wide[OWN] * taste.weights[:, None]).T @ wide[OWN]
    for item, sure in enumerate(confidence(np.arange(90), space, taste, None)):
        x = wide[item]
        left = (x @ np.linalg.solve(posterior, x)) / (x @ np.linalg.solve(prior, x))
        assert sure.evidence == pytest.approx(1 - left, abs=1e-9)


def test_evidence_grows_with_the_history_and_is_nought_without():
    space, taste = fitted(2)
    empty = fit(space, preferences_of([]), CONFIG)
    assert all(sure.evidence == pytest.approx(0, abs=1e-9) for sure in confidence(np.arange(90), space, empty, None))
    shorter = fit(space, preferences_of([("had", item) for item in OWN[-5:]]), CONFIG)
    more, less = confidence(np.arange(90), space, taste, None), confidence(np.arange(90), space, shorter, None)
    assert all(one.evidence > other.evidence for one, other in zip(more, less, strict=True))


def test_where_nothing_is_to_be_known_nothing_is_settled():
    rows = np.zeros((4, 3), dtype=np.float32)
    rows[0, 0] = 1.0
    space = space_of(rows, CONFIG, popularity=None)
    taste = fit(space, preferences_of([("had", 0)]), CONFIG)
    known, nothing = confidence(np.array([0, 2]), space, taste, None)
    assert known.evidence > 0.5
    assert nothing.evidence == 0.0


def test_a_short_history_has_no_track_and_makes_every_recommendation_a_guess():
    space, _ = fitted()
    short = fit(space, preferences_of([("had", item) for item in OWN[:4]]), CONFIG)
    assert track_record(space, short, 0.0) is None
    assert {sure.level for sure in confidence(np.arange(90), space, short, None)} == {"a guess"}


def test_levels_rise_with_track_and_evidence():
    ladder = ["a guess", "fair", "strong"]
    for weaker, stronger in [((2, 0.1), (10, 0.1)), ((10, 0.1), (10, 0.3)), ((0, 1.0), (20, 1.0))]:
        levels = [Confidence(Track(found, 20), evidence).level for found, evidence in (weaker, stronger)]
        assert ladder.index(levels[0]) < ladder.index(levels[1])
    assert "4 of your last 20" in Confidence(Track(4, 20), 0.3).sentence
