from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from palate.audit.attack import game
from palate.audit.attack.findings import LIMITS
from palate.audit.attack.game import fresh_key, play
from palate.audit.attack.page import attack_page
from palate.audit.attack.plan import QUORUM, AttackPlan, Game, plan_for, plan_of, plan_of_run
from palate.audit.attack.verdict import EmpiricalViolation, attack, round_down
from palate.audit.opening import open_source
from palate.cli import attack as attack_cli
from palate.errors import ConfigError, RunError
from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.audit.canaries import draw_canaries
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.ledger.body import Intent, Outcome, Policy, hash_text
from palate.privacy.ledger.errors import Tampered
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.mechanisms.terms import ReleaseTerms

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SMALL = Game(canaries=120, num_values=256)


@pytest.fixture(autouse=True)
def _few_zero_input_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game, "ZERO_INPUT_VALUES", 1 << 13)


def keys(seed: int) -> Callable[[], bytes]:
    numbers = count()
    return lambda: sha256(b"%d %d" % (seed, next(numbers))).digest()


def terms(noise_multiplier: float = 1.0, **changes: object) -> ReleaseTerms:
    values = {"clip_norm": 1.0, "sensitivity": 4096, "honest_shares": 100, "roster_size": 200} | changes
    share = math.ceil((noise_multiplier * values["sensitivity"]) ** 2 / values["honest_shares"])
    return ReleaseTerms(share_variance=share, **values)


def small_plan(*rounds: ReleaseTerms, size: Game = SMALL) -> AttackPlan:
    return plan_of(rounds, delta=1e-5, game=size, source="a test")


# The plan


def test_a_planned_attack_has_the_noise_that_the_budget_needs():
    plan = plan_for(epsilon=8.0, delta=1e-5, rounds=20, devices=500, game=SMALL)
    assert plan.claim().epsilon == pytest.approx(8.0, rel=5e-3)
    assert plan.claim().epsilon <= 8.0
    assert plan.rounds == (plan.rounds[0],) * 20
    assert (plan.rounds[0].roster_size, plan.rounds[0].honest_shares) == (500, QUORUM.honest_survivors(500))
    assert plan.mu == pytest.approx(math.sqrt(20) / plan.rounds[0].noise_multiplier)


def test_rounds_with_different_noise_are_accounted_for_together():
    plan = small_plan(terms(4.0), terms(2.0), terms(2.0))
    assert plan.mu == pytest.approx(math.sqrt(1 / 16 + 1 / 4 + 1 / 4), rel=1e-4)
    one, two = (SkellamEvent(sensitivity=4096, variance=terms(z).sum_variance) for z in (4.0, 2.0))
    assert plan.claim() == account_for([one, Composed(two, 2)], 1e-5)


def test_a_small_cohort_is_attacked_several_times():
    plan = small_plan(terms(1.0, roster_size=50, honest_shares=30))
    assert (plan.canaries, plan.repeats, plan.base_devices) == (50, 3, 0)
    assert replace(plan, repeats=1) == small_plan(plan.rounds[0], size=replace(SMALL, repeats=1))


def test_a_large_cohort_has_base_devices_besides():
    assert small_plan(terms()).base_devices == 50
    assert small_plan(terms(1.0, roster_size=130)).base_devices == 10


def test_vectors_are_shortened_to_what_the_smallest_sensitivity_has_room_for():
    coarse = terms(2.0, sensitivity=16)
    plan = small_plan(terms(), coarse, size=replace(SMALL, num_values=8192))
    coarse.mechanism(plan.num_values)
    with pytest.raises(PrivacyError, match="too small"):
        coarse.mechanism(2 * plan.num_values)


@pytest.mark.parametrize("changes", [{"canaries": 5}, {"num_values": 0}, {"repeats": 0}])
def test_a_game_too_small_is_refused(changes: dict[str, int]):
    with pytest.raises(PrivacyError, match="must be a whole number of at least"):
        replace(SMALL, **changes)


# A run's ledger


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A run folder whose server wrote a popularity round and two training rounds, of which one was withheld."""

    def make(*, unit: str = "user", mechanism: str = "skellam", statuses: str = "rrw", odd: int = 0) -> Path:
        run = tmp_path / "run-1"
        folder = run / "ledgers"
        folder.mkdir(parents=True)
        (run / "config.toml").write_text("")
        (folder / "public.key").write_text(SIGNER.public_key().public_bytes_raw().hex() + "\n")
        budget = budget_nano_for(SkellamMeter(1), 100.0, 1e-5)
        with LedgerBook(folder / "server.sqlite", SIGNER) as book:
            policy = Policy(unit=unit, adjacency="zero-out", delta="1e-5", budget_nano=budget, n_min=2)
            book.create(["server"], policy)
            for number, status in enumerate(statuses):
                planned = terms(4.0 if number == 0 else 2.0)
                intent = Intent(
                    run="run-1",
                    round=number,
                    mechanism=mechanism,
                    unit=unit,
                    adjacency="zero-out",
                    clip_int=planned.sensitivity,
                    sum_var_int=planned.sum_variance + odd,
                    m_honest=planned.honest_shares,
                    n1=planned.roster_size,
                    sampling="none-claimed",
                    model=hash_text(b"table"),
                    transcript=hash_text(b"plan"),
                )
                book.append("server", intent)
                released = {"r": ("released", hash_text(b"sum")), "w": ("withheld", "")}
                if status in released:
                    name, payload = released[status]
                    outcome = Outcome(run="run-1", round=number, status=name, payload=payload, receipt="")
                    book.append("server", outcome)
        return run

    return make


def test_the_plan_of_a_run_is_what_its_ledger_says_was_released(make_run: Callable[..., Path]):
    plan = plan_of_run(open_source(str(make_run())), SMALL)
    assert plan.rounds == (terms(4.0), terms(2.0))
    assert plan.delta == 1e-5
    assert "2 rounds of the verified ledger of run-1" in plan.source


def test_a_round_that_may_have_left_is_counted(make_run: Callable[..., Path]):
    assert len(plan_of_run(open_source(str(make_run(statuses="rw?"))), SMALL).rounds) == 2


@pytest.mark.parametrize(
    ("made", "error", "complaint"),
    [
        ({"unit": "interaction"}, ConfigError, "protects unit interaction"),
        ({"mechanism": "gaussian"}, ConfigError, "used the mechanism 'gaussian'"),
        ({"odd": 1}, RunError, "is not 100 equal shares"),
        ({"statuses": "ww"}, RunError, "released nothing"),
    ],
)
def test_a_run_that_cannot_be_attacked_is_refused(
    make_run: Callable[..., Path], made: dict[str, object], error: type[Exception], complaint: str
):
    with pytest.raises(error, match=complaint) as refused:
        plan_of_run(open_source(str(make_run(**made))), SMALL)
    assert refused.value.hint


def test_a_ledger_signed_with_another_key_is_not_believed(make_run: Callable[..., Path]):
    run = make_run()
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw().hex()
    with pytest.raises(Tampered):
        plan_of_run(open_source(str(run), other), SMALL)


# The game


def test_scores_are_one_higher_for_canaries_that_are_in_and_have_the_spread_of_the_noise():
    plan = small_plan(*[terms(0.5)] * 4, size=replace(SMALL, canaries=200, num_values=1024, repeats=4))
    seen = play(plan, np.random.default_rng(1), key=keys(1))
    shifted = seen.scores - seen.included
    assert len(shifted) == 800
    assert abs(shifted.mean()) < 5 * shifted.std() / math.sqrt(800)
    assert shifted.std() == pytest.approx(0.5 / 2, rel=0.1)  # z / sqrt(T)


def test_weights_make_the_most_of_rounds_with_different_noise():
    plan = small_plan(terms(4.0), terms(1.0), terms(1.0), size=replace(SMALL, canaries=200, num_values=1024, repeats=4))
    seen = play(plan, np.random.default_rng(2), key=keys(2))
    spread = (seen.scores - seen.included).std()
    assert 1 / spread == pytest.approx(plan.mu, rel=0.1)


def test_without_noise_the_scores_are_the_rounded_contributions_alone():
    """Whatever the base devices sent is gone, and canaries that are four times too long count once."""
    silent = type("Silent", (type(terms().mechanism(64)),), {"noise": lambda self, *_, **__: np.zeros(256, np.int64)})
    plan = small_plan(terms(), terms(clip_norm=0.01))
    build = lambda given, size: silent(**vars(given.mechanism(size)))  # noqa: E731
    seen = play(plan, np.random.default_rng(3), key=keys(3), build=build)
    np.testing.assert_allclose(seen.scores, seen.included, atol=1e-3)
    assert seen.scores[~seen.included].tolist() == [0.0] * int((~seen.included).sum())
    assert not np.allclose(seen.output_scores, seen.scores, atol=0.01)  # where the other canaries still are


def test_scores_of_the_output_alone_hold_what_the_other_canaries_add():
    plan = small_plan(terms(0.5))
    seen = play(plan, np.random.default_rng(4), key=keys(4))
    canaries = draw_canaries(np.random.default_rng(4), plan.canaries, plan.num_values)
    np.testing.assert_array_equal(canaries.included, seen.included)
    gram = canaries.directions @ canaries.directions.T
    others = gram @ canaries.included - np.diag(gram) * canaries.included
    np.testing.assert_allclose(seen.output_scores - seen.scores, others, atol=5e-3)


def test_every_device_and_round_has_its_own_key():
    given: list[bytes] = []

    def key() -> bytes:
        given.append(fresh_key())
        return given[-1]

    plan = small_plan(terms(), terms())
    seen = play(plan, np.random.default_rng(5), key=key)
    rounds, zero_rounds = 2, seen.zero_input[terms()].size // plan.num_values
    assert len(given) == rounds * (int(seen.included.sum()) + plan.base_devices + 1) + 2 * zero_rounds
    assert len(set(given)) == len(given)


def test_the_seed_decides_canaries_and_coins_and_leaves_the_noise_to_the_system():
    plan = small_plan(terms())
    first, again = (play(plan, np.random.default_rng(6)) for _ in range(2))
    np.testing.assert_array_equal(first.included, again.included)
    assert (first.scores != again.scores).all()
    repeated, once_more = (attack(plan, seed=6, key=keys(6)) for _ in range(2))
    assert repeated == once_more


def test_the_noise_of_a_round_is_that_of_the_honest_shares():
    plan = small_plan(terms(1.0, honest_shares=20))
    seen = play(plan, np.random.default_rng(7), key=keys(7))
    assert seen.zero_input[plan.rounds[0]].std() == pytest.approx(4096, rel=0.04)


def test_the_sum_that_is_attacked_is_the_one_that_devices_send_one_by_one(monkeypatch: pytest.MonkeyPatch):
    plan = replace(small_plan(terms(0.5)), base_devices=0)
    caught: list[tuple[np.ndarray, np.ndarray]] = []
    real = game.release_sum

    def catch(integers: np.ndarray, *rest: object) -> np.ndarray:
        caught.append((integers, real(integers, *rest)))
        return caught[-1][1]

    monkeypatch.setattr(game, "release_sum", catch)
    play(plan, np.random.default_rng(8), key=keys(8))
    canaries = draw_canaries(np.random.default_rng(8), plan.canaries, plan.num_values)
    own_keys, quantiser = keys(8), terms().mechanism(plan.num_values).quantiser
    for _ in range(2 * (len(caught) - 1)):
        own_keys()  # of the zero-input rounds
    by_hand = sum(
        quantiser.quantise(4 * canaries.directions[person], WordStream(own_keys(), Purpose.ROUNDING))
        for person in np.flatnonzero(canaries.included)
    )
    np.testing.assert_array_equal(caught[-1][0], by_hand)
    assert all(not integers.any() for integers, _ in caught[:-1])


def test_progress_counts_every_round_of_every_repeat():
    heard: list[int] = []
    plan = replace(small_plan(terms(), terms()), repeats=3)
    play(plan, np.random.default_rng(9), key=keys(9), watch=heard.append)
    assert heard == [1, 2, 3, 4, 5, 6]
    assert plan.steps == 6


def test_rounds_that_all_differ_share_the_zero_input_rounds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(game, "MAX_ZERO_INPUT_VALUES", 1 << 13)
    seen = play(small_plan(*(terms(z) for z in (1.0, 1.1, 1.2, 1.3))), np.random.default_rng(1), key=keys(1))
    assert {noise.size for noise in seen.zero_input.values()} == {1 << 11}


# The command


@pytest.fixture
def call() -> Callable[..., Result]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("attack")(attack_cli.attack)
    runner = CliRunner(env={"COLUMNS": "200"})
    return lambda *arguments: runner.invoke(app, [*arguments, "--canaries", "120", "--num-values", "256"])


def test_a_budget_is_attacked_and_not_refuted(call: Callable[..., Result]):
    found = call("--epsilon", "8", "--rounds", "2", "--seed", "1")
    assert found.exit_code == 0, found.exception
    assert "Not refuted: epsilon 7.994 at delta 1e-05 per user" in found.stdout
    for words in ("claim", "theory", "95% interval", "this one decides", "one-run certificate", LIMITS):
        assert words in found.stdout
    assert "secure aggregation holds" in found.stdout
    assert "VIOLATED" not in found.stdout


@pytest.mark.campaign(short=2, long=40)
def test_a_clean_mechanism_raises_no_alarm(call: Callable[..., Result], draw: int):
    found = call("--epsilon", str((1, 2, 4, 8)[draw % 4]), "--rounds", "2", "--seed", str(100 + draw))
    assert found.exit_code == 0, found.stdout


def test_json_has_the_claim_the_bounds_and_every_finding(call: Callable[..., Result]):
    found = call("--epsilon", "8", "--rounds", "2", "--devices", "40", "--delta", "1e-6", "--seed", "2", "--json")
    values = json.loads(found.stdout)
    assert values["verdict"] == "not refuted"
    assert (values["claim"]["unit"], values["claim"]["delta"]) == ("user", 1e-6)
    assert values["lower_bound"]["epsilon"] <= values["lower_bound"]["epsilon_95"] <= values["claim"]["epsilon"]
    assert values["estimate"]["epsilon_low"] <= values["estimate"]["epsilon"] <= values["estimate"]["epsilon_high"]
    assert values["attack"] == {"rounds": 2, "repeats": 3, "canaries": 120, "num_values": 256, "base_devices": 0}
    assert [finding["held"] for finding in values["findings"]] == [True] * 6


def test_a_run_is_attacked_as_its_ledger_says(call: Callable[..., Result], make_run: Callable[..., Path]):
    run = make_run()
    values = json.loads(call(str(run), "--seed", "3", "--json").stdout)
    assert values["mu"] == pytest.approx(math.sqrt(1 / 16 + 1 / 4), rel=1e-3)
    assert values["source"] == "2 rounds of the verified ledger of run-1"


def test_a_violation_is_shown_before_it_ends_the_command(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch):
    def faulty(given: ReleaseTerms, size: int) -> object:
        return replace(given, share_variance=given.share_variance // 9).mechanism(size)

    monkeypatch.setattr(attack_cli, "run_attack", lambda plan, **rest: attack(plan, build=faulty, **rest))
    found = call("--epsilon", "8", "--rounds", "2", "--seed", "4")
    assert isinstance(found.exception, EmpiricalViolation)
    assert found.exception.exit_code == 7
    assert "VIOLATED: epsilon 7.994" in found.stdout
    ratio = re.search(r"noise size +VIOLATED +zero-input noise is (0\.\d+) of the claimed", found.stdout)
    assert ratio is not None
    assert float(ratio.group(1)) == pytest.approx(1 / 3, abs=0.03)  # ten standard errors
    as_json = call("--epsilon", "8", "--rounds", "2", "--seed", "4", "--json")
    assert json.loads(as_json.stdout)["verdict"] == "violated"
    assert isinstance(as_json.exception, EmpiricalViolation)


def test_the_page_says_what_the_terminal_says_and_asks_nobody_else(call: Callable[..., Result], tmp_path: Path):
    found = call("--epsilon", "8", "--rounds", "2", "--seed", "5", "--html", str(tmp_path / "attack.html"))
    assert found.exit_code == 0, found.exception
    page = (tmp_path / "attack.html").read_text("utf-8")
    assert "The claim was not refuted." in page
    assert LIMITS in page
    assert page.count("<svg") == 1
    for figure in re.findall(r"\d+\.\d{3}", found.stdout):
        assert figure in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)


def test_a_page_about_a_violation_says_so_first():
    plan = small_plan(terms())
    result = attack(
        plan, seed=1, key=keys(1), build=lambda given, size: replace(given, share_variance=7).mechanism(size)
    )
    page = attack_page(result)
    assert 'class="banner warning"' in page
    assert page.index("The claim is violated") < page.index("zero-input noise")
    assert page == attack_page(result)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "neither a run nor --epsilon is given"),
        (("--epsilon", "8"), "neither a run nor --rounds is given"),
        (("run", "--rounds", "3"), "--rounds is given together with a run"),
        (("run", "--delta", "1e-5"), "--delta is given together with a run"),
        (("--epsilon", "8", "--rounds", "2", "--key", "00"), "--key is given without a run"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    call: Callable[..., Result], arguments: tuple[str, ...], complaint: str
):
    found = call(*arguments)
    assert isinstance(found.exception, ConfigError)
    assert complaint in found.exception.message
    assert found.exception.hint


def test_what_was_measured_is_rounded_down():
    assert [round_down(value) for value in (1.9999, 0.0, 2.0, math.inf)] == ["1.999", "0.000", "2.000", "without limit"]
