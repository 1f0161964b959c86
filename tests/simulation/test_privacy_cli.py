"""`palate plan`: the library's own numbers, each with what it takes to read it; bad input is one error line."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import Any

import pytest

from palate.audit.budget_plan import MAX_ROUNDS, NOTICE, PlanRequest, make_plan
from palate.cli.errors import EXIT_CODES
from palate.cli.main import main
from palate.privacy.accounting.calibrate import calibrate_skellam
from palate.privacy.accounting.dropout import Quorum, local_event
from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.guarantee import account_for, round_up

SENSITIVITY = 2**12
PlanJson = Callable[..., dict[str, Any]]


def without_data(arguments) -> list[str]:
    """Arguments with one that asks for a plan without data, where they have none."""
    words = list(map(str, arguments))
    return words if {"--devices", "--cohort"} & set(words) else [*words, "--devices", "1000"]


@pytest.fixture
def plan(capsys) -> PlanJson:
    """Run `palate plan --json` and return what stdout holds, which must be one JSON object."""

    def call(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        code = main(["plan", "--json", *without_data(arguments)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        found: dict[str, Any] = json.loads(captured.out, parse_constant=pytest.fail)
        return found

    return call


@pytest.fixture
def text(capsys, monkeypatch) -> Callable[..., str]:
    """Run `palate plan` and return what a person reads, without line breaks."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["plan", *without_data(arguments)]) == 0
        return " ".join(capsys.readouterr().out.split())

    return call


def one_round(noise_multiplier: float, num_values: int | None = None) -> SkellamEvent:
    return SkellamEvent(sensitivity=SENSITIVITY, variance=(noise_multiplier * SENSITIVITY) ** 2, num_values=num_values)


def test_a_cost_is_the_librarys_claim_with_everything_needed_to_read_it(plan):
    found = plan("--noise-multiplier", 5, "--rounds", 50)
    claim = account_for([Composed(one_round(5.0), 50)], 1e-5)
    assert found["question"] == "cost"
    assert found["central"] == {
        "epsilon": claim.epsilon,
        "delta": 1e-5,
        "unit": "user",
        "adjacency": str(claim.adjacency),
        "accountant": claim.accountant,
        "amplification": "none claimed",
        "assumptions": list(map(str, claim.assumptions)),
        "cross_checks": [],
    }
    assert found["notice"] == NOTICE
    for figure in ("likely", "local"):
        assert {"epsilon", "delta", "unit", "adjacency", "accountant", "amplification"} <= set(found[figure])


@pytest.mark.parametrize(
    ("noise_multiplier", "rounds", "exact"), [(5, 50, 6.573), (20, 200, 2.943), (3.731, 1, 1.0), (1.994, 1, 2.0)]
)
def test_cross_checks_give_the_published_figures_and_the_claim_lies_above(plan, noise_multiplier, rounds, exact):
    pytest.importorskip("dp_accounting", reason="needs the extra audit")
    central = plan("--noise-multiplier", noise_multiplier, "--rounds", rounds, "--check")["central"]
    figures = {check["accountant"]: check["epsilon"] for check in central["cross_checks"]}
    assert figures["exact Gaussian"] == pytest.approx(exact, abs=6e-4)
    assert figures["dp_accounting PLD"] == pytest.approx(exact, abs=2e-3)
    assert figures["Opacus PRV"] == pytest.approx(exact + 0.01, abs=2e-3)
    assert exact < central["epsilon"] <= 1.15 * exact


def test_noise_is_the_librarys_calibration_and_meets_the_target(plan):
    found = plan("--epsilon", 8, "--rounds", 50, "--num-values", 60_000)
    wanted = calibrate_skellam(epsilon=8.0, delta=1e-5, rounds=50, sensitivity=SENSITIVITY, num_values=60_000)
    assert found["noise_multiplier"] == wanted.noise_multiplier == pytest.approx(4.255, abs=5e-4)
    assert 7.97 < found["central"]["epsilon"] <= 8


def test_noise_for_a_vector_of_any_length_also_covers_the_worst_length(plan):
    found = plan("--epsilon", 8, "--rounds", 50, "--sensitivity", 4)
    event = SkellamEvent(sensitivity=4, variance=found["mechanism"]["variance"], num_values=10**9)
    assert account_for([Composed(event, 50)], 1e-5).epsilon <= 8
    assert (
        found["noise_multiplier"]
        > plan("--epsilon", 8, "--rounds", 50, "--sensitivity", 4, "--num-values", 1)["noise_multiplier"]
    )


def test_as_many_rounds_are_left_as_the_noise_was_sized_for(plan):
    noise = plan("--epsilon", 8, "--rounds", 50)["noise_multiplier"]
    asked = ("--epsilon", 8, "--noise-multiplier", noise)
    assert plan(*asked)["rounds_left"] == 50
    after = plan(*asked, "--spent-rounds", 20)
    assert (after["rounds_left"], after["spent_rounds"], after["rounds"]) == (30, 20, 50)
    assert plan(*asked, "--spent-rounds", 50)["rounds_left"] == 0
    overspent = plan(*asked, "--spent-rounds", 60)
    assert overspent["rounds_left"] == 0
    assert any("already cost more" in note for note in overspent["notes"])


def test_one_more_round_than_are_left_would_exceed_the_budget(plan):
    left = plan("--epsilon", 4, "--noise-multiplier", 6)["rounds_left"]
    assert account_for([Composed(one_round(6.0), left)], 1e-5).epsilon <= 4
    assert account_for([Composed(one_round(6.0), left + 1)], 1e-5).epsilon > 4


def test_a_budget_below_one_round_leaves_none_and_says_what_one_costs(text):
    shown = text("--epsilon", 1, "--noise-multiplier", 2)
    assert "No round is left" in shown
    assert f"One round costs {round_up(account_for([one_round(2.0)], 1e-5).epsilon)}." in shown


def test_a_cap_bounds_what_every_device_pays(plan):
    schedule = ("--noise-multiplier", 2, "--rounds", 300, "--devices", 6040, "--cohort", 200)
    free, capped = plan(*schedule), plan(*schedule, "--cap", 5)
    assert free["central"]["epsilon"] == account_for([Composed(one_round(2.0), 300)], 1e-5).epsilon
    assert capped["central"]["epsilon"] == account_for([Composed(one_round(2.0), 5)], 1e-5).epsilon
    assert (free["device_rounds"], capped["device_rounds"]) == (300, 5)
    # The busiest of 6040 devices takes part far less often than always; that is information, not a promise.
    assert 10 < free["likely"]["device_rounds"] < 40
    assert capped["by_round"][-1] == {**capped["by_round"][-2], "round": 300}


def test_a_cap_lowers_the_noise_and_ends_the_rounds(plan):
    free, capped = (plan("--epsilon", 8, "--rounds", 300, *more) for more in ((), ("--cap", 5)))
    assert capped["noise_multiplier"] == plan("--epsilon", 8, "--rounds", 5)["noise_multiplier"]
    assert capped["noise_multiplier"] < free["noise_multiplier"] / 5
    ended = plan("--epsilon", 8, "--noise-multiplier", 5, "--cap", 7, "--spent-rounds", 4)
    assert ended["rounds_left"] == 3
    assert any("cap of 7" in note for note in ended["notes"])


def test_a_share_alone_is_priced_and_called_no_protection(plan, text):
    asked = ("--noise-multiplier", 1, "--rounds", 1, "--cohort", 248)
    found = plan(*asked)
    honest = Quorum(tau=0.6, gamma=0.2).honest_survivors(248)
    assert honest == found["quorum"]["honest_survivors"] == 100
    assert found["local"]["epsilon"] == account_for([local_event(one_round(1.0), 100)], 1e-5).epsilon > 90
    assert found["local"]["assumptions"] == []
    assert "no protection by itself" in found["local"]["warning"]
    assert "no protection by itself" in text(*asked)


@pytest.mark.parametrize(
    ("tau", "gamma", "inflations"),
    [(0.6, 0.2, (1.58, 1.50, 1.32)), (0.7, 0.1, (1.29, 1.22, None)), (0.8, 0.05, (1.15, 1.10, None))],
)
def test_dropouts_widen_the_noise_as_published(plan, tau, gamma, inflations):
    asked = ("--noise-multiplier", 1, "--rounds", 1, "--devices", 1000)
    rows = plan(*asked, "--quorum", tau, "--corrupt", gamma)["quorum"]["std_inflation"]
    assert [row["dropout"] for row in rows] == [0.0, 0.1, 0.3]
    for row, wanted in zip(rows, inflations, strict=True):
        # At exactly 30% of 1000 the quorum of 0.7 is one survivor short.
        assert row["std_inflation"] == (wanted if wanted is None else pytest.approx(wanted, abs=6e-3))


def test_rows_by_round_never_fall_and_end_at_the_claim(plan):
    found = plan("--noise-multiplier", 3, "--rounds", 137)
    rows = found["by_round"]
    assert [row["round"] for row in rows] == [1, 2, 5, 10, 20, 50, 100, 137]
    for column in ("central", "local"):
        assert [row[column] for row in rows] == sorted(row[column] for row in rows)
    assert rows[-1]["central"] == found["central"]["epsilon"]
    assert rows[-1]["local"] == found["local"]["epsilon"]


def test_the_page_states_what_an_epsilon_means_and_that_nothing_runs_protected_yet(text):
    shown = text("--epsilon", 8, "--rounds", 50)
    for words in (
        NOTICE, "Epsilon 8 at delta 1e-05 per user over 50 rounds needs noise multiplier 4.255.", "Unit user",
        "Delta 1e-05", "Adjacency zero-out", "Accountant Skellam noise as mixed Gaussians",
        "Amplification none claimed",
        "Assuming secure aggregation holds", "601 survivors", "1.58 times the planned",
    ):  # fmt: skip
        assert words in shown


def test_every_answer_says_which_runs_it_is_about(text):
    assert NOTICE in text("--epsilon", 8, "--rounds", 50)


def test_a_setting_that_needs_data_is_refused_without_data(capsys):
    code, error = refusal(capsys, "--epsilon", 8, "--rounds", 50, "--dim", 4)
    assert code == 2
    assert "schedule.dim says nothing about a plan without data" in error


def test_a_delta_that_gives_people_away_is_remarked_on(plan):
    asked = ("--epsilon", 1, "--rounds", 1, "--devices", 1000, "--delta")
    assert any("not below one over 1,000 devices" in note for note in plan(*asked, 1e-3)["notes"])
    assert plan(*asked, 9e-4)["notes"] == []


def test_bits_are_the_sensitivitys_power_of_two(plan):
    asked = ("--epsilon", 1, "--rounds", 1)
    assert plan(*asked, "--bits", 10) == plan(*asked, "--sensitivity", 1024)
    assert plan(*asked)["mechanism"]["sensitivity"] == SENSITIVITY


@pytest.mark.parametrize(("name", "start"), [("budget.png", b"\x89PNG"), ("budget.SVG", b"<?xml")])
@pytest.mark.parametrize("rounds", [1, 700])
def test_a_plot_is_drawn_into_a_new_folder(plan, tmp_path, name, start, rounds):
    pytest.importorskip("matplotlib", reason="needs the extra report")
    path = tmp_path / "plots" / name
    plan("--epsilon", 8, "--rounds", rounds, "--plot", path)
    drawn = path.read_bytes()
    assert drawn.startswith(start)
    plan("--epsilon", 8, "--rounds", rounds, "--plot", path)
    assert path.read_bytes() == drawn


def refusal(capsys, *arguments: object) -> tuple[int, str]:
    """Run a command that must fail; return its code and its error line."""
    capsys.readouterr()
    code = main(["plan", *without_data(arguments)])
    captured = capsys.readouterr()
    assert code in EXIT_CODES
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = captured.err.splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert len([line for line in lines if line.startswith("hint: ") and len(line) > len("hint: ")]) == 1
    return code, error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "none of --epsilon, --noise-multiplier and --rounds"),
        ("--epsilon 8", "only one of"),
        ("--epsilon 8 --rounds 5 --noise-multiplier 2", "each of"),
        ("--epsilon 0 --rounds 5", "epsilon = 0.0"),
        ("--epsilon -1 --noise-multiplier 2", "epsilon = -1.0"),
        ("--epsilon nan --rounds 5", "epsilon = nan"),
        ("--epsilon inf --rounds 5", "epsilon = inf"),
        ("--epsilon 2000 --rounds 5", "epsilon = 2000"),
        ("--epsilon 8 --rounds 5 --delta 1", "delta = 1.0"),
        ("--epsilon 8 --rounds 5 --delta 0", "delta = 0.0"),
        ("--epsilon 8 --rounds 5 --delta nan", "delta = nan"),
        ("--epsilon 8 --rounds 0", "rounds = 0"),
        ("--epsilon 8 --rounds 1000001", "rounds = 1000001: input should be less than or equal to 1000000"),
        ("--epsilon 8 --rounds five", "'five'"),
        ("--noise-multiplier 0 --rounds 5", "noise_multiplier = 0.0"),
        ("--noise-multiplier 1e300 --rounds 5", "noise_multiplier = 1e+300"),
        ("--noise-multiplier 1e-9 --rounds 5", "noise_multiplier = 1e-09"),
        ("--epsilon 8 --rounds 5 --spent-rounds 2", "spent_rounds is 2"),
        ("--epsilon 8 --noise-multiplier 2 --spent-rounds -1", "spent_rounds = -1"),
        ("--epsilon 8 --noise-multiplier 2 --spent-rounds 9 --cap 8", "at most the cap of 8"),
        ("--epsilon 1000 --noise-multiplier 1e4", f"at most {MAX_ROUNDS}"),
        ("--epsilon 0.001 --rounds 1000000 --delta 1e-90", "no noise multiplier"),
        ("--epsilon 8 --rounds 5 --cap 0", "cap = 0"),
        ("--epsilon 8 --rounds 5 --devices 0", "devices = 0"),
        ("--epsilon 8 --rounds 5 --devices 10 --cohort 11", "cohort is 11"),
        ("--epsilon 8 --rounds 5 --quorum 0.3", "tau is 0.3"),
        ("--epsilon 8 --rounds 5 --quorum 1", "tau is 1.0"),
        ("--epsilon 8 --rounds 5 --quorum nan", "tau = nan"),
        ("--epsilon 8 --rounds 5 --corrupt 0.5", "tau is 0.6"),
        ("--epsilon 8 --rounds 5 --bits 3 --sensitivity 8", "--bits 3 and --sensitivity 8"),
        ("--epsilon 8 --rounds 5 --bits 31", "bits is 31"),
        ("--epsilon 8 --rounds 5 --sensitivity 0", "sensitivity = 0"),
        ("--epsilon 8 --rounds 5 --num-values 0", "num_values = 0"),
        ("--epsilon 8 --rounds 5 --plot budget.pdf", "budget.pdf"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line_with_the_value(capsys, arguments, words):
    code, error = refusal(capsys, *arguments.split())
    assert code == 2
    assert words in error


def test_a_missing_accountant_is_the_machines_problem(capsys, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "dp_accounting":
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, error = refusal(capsys, "--noise-multiplier", 5, "--rounds", 5, "--check")
    assert code == 12
    assert "dp-accounting is not installed" in error


def test_the_extremes_of_what_can_be_planned_have_finite_figures():
    for noise, sensitivity, devices in ((1e-2, 1, 10**9), (1e-2, 2**30, 10**9), (1e6, 2**30, 1)):
        request = PlanRequest(
            noise_multiplier=noise,
            rounds=MAX_ROUNDS,
            devices=devices,
            cohort=devices,
            sensitivity=sensitivity,
        )
        made = make_plan(request)
        assert float(round_up(made.local.epsilon)) >= float(round_up(made.promised.epsilon)) > 0
        json.dumps(made.to_dict(), allow_nan=False)
