"""`palate audit budget` and `plan`: figures from the ledgers alone, held to two sources, the claim and the budget."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from palate.privacy.accounting import crosscheck
from palate.privacy.accounting.events import GaussianEvent
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.ledger.body import Window
from palate.privacy.ledger.store import LedgerBook

DEVICES = tuple(f"device-{number:06}" for number in range(6))


def by_hand(intents: list, delta: float) -> float:
    """Balle & Wang 2018, Theorem 8, for Gaussians of variance V - 12 sqrt(V) - 16 (docs/skellam-as-gaussians.md)."""
    mu = math.sqrt(sum(i.clip_int**2 / (i.sum_var_int - 12 * math.sqrt(i.sum_var_int) - 16) for i in intents))

    def surplus(found: float) -> float:
        return norm.cdf(mu / 2 - found / mu) - math.exp(found) * norm.cdf(-mu / 2 - found / mu) - delta

    return float(brentq(surplus, 1e-6, 50.0, xtol=1e-13))


@pytest.fixture
def claim(run):
    """Change what result.json says about the guarantee."""

    def change(**changes: object) -> Path:
        values = json.loads((run / "result.json").read_text())
        values["guarantee"].update(changes)
        (run / "result.json").write_text(json.dumps(values))
        return run

    return change


def test_the_figure_is_the_proven_one_and_lies_above_the_exact_gaussian(run, audit_json, kit):
    (unit,) = audit_json("budget", run, "--no-check")["units"]
    intents = [kit.intent(number) for number in kit.everybody]
    assert unit["guarantee"]["epsilon"] == pytest.approx(by_hand(intents, kit.delta), rel=1e-6)
    gaussian = [GaussianEvent(noise_multiplier=math.sqrt(i.sum_var_int) / i.clip_int) for i in intents]
    assert 1.0 < unit["epsilon"] / account_for(gaussian, kit.delta).epsilon < 1.003
    assert unit["guarantee"]["accountant"].startswith("Skellam noise as mixed Gaussians")
    assert (unit["unit"], unit["delta"], unit["guarantee"]["amplification"]) == ("user", 1e-5, "none claimed")
    assert unit["adjacency"].startswith("zero-out")
    assert unit["guarantee"]["assumptions"]


def test_independent_accountants_are_asked_about_what_the_ledger_says(run, audit_json, audit, kit):
    pytest.importorskip("dp_accounting", reason="needs the extra audit")
    (unit,) = audit_json("budget", run)["units"]
    found = {check["accountant"]: check["epsilon"] for check in unit["guarantee"]["cross_checks"]}
    gaussian = [GaussianEvent(noise_multiplier=math.sqrt(i.sum_var_int) / i.clip_int)
                for i in map(kit.intent, kit.everybody)]  # fmt: skip
    assert found["dp_accounting PLD"] == pytest.approx(account_for(gaussian, kit.delta).epsilon, abs=1e-3)
    assert found["exact Gaussian"] < unit["epsilon"] < found["dp_accounting RDP"]


def test_accountants_that_disagree_end_in_4(run, audit, monkeypatch):
    pytest.importorskip("dp_accounting", reason="needs the extra audit")
    monkeypatch.setattr(crosscheck, "google_pld", lambda events, delta: 0.5)
    code, _, err = audit("budget", run)
    assert code == 4
    assert "dp_accounting PLD says epsilon 0.5" in err


def test_a_missing_accountant_ends_in_12_and_can_be_left_out(run, audit, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    code, _, err = audit("budget", run)
    assert (code, "dp-accounting" in err) == (12, True)
    assert audit("budget", run, "--no-check")[0] == 0


def test_spent_and_left_add_up_to_the_budget(run, audit_json):
    (unit,) = audit_json("budget", run, "--no-check")["units"]
    for ledger in (unit["busiest"], unit["server"], *unit["spread"].values()):
        assert ledger["spent_nano"] + ledger["left_nano"] == unit["budget"]["nano"]
    assert unit["budget"]["epsilon"] == pytest.approx(8.0, abs=1e-6)
    assert unit["busiest"]["spent_nano"] == sum(row["charge_nano"] for row in unit["rounds"])
    assert unit["rounds_left"] == unit["busiest"]["left_nano"] // unit["rounds"][-1]["charge_nano"]
    assert [row["epsilon"] for row in unit["rounds"]] == sorted(row["epsilon"] for row in unit["rounds"])
    assert unit["rounds"][-1]["epsilon"] == unit["epsilon"]


def test_the_guarantee_is_that_of_the_device_that_spent_most(tmp_path, audit_json, kit):
    taking_part = dict(zip(DEVICES, [(0,), (0, 1), (0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 2)], strict=True))
    folder = kit.write_run(tmp_path / "small", participation=taking_part,
                           intents=lambda n: kit.intent(n, m_honest=1))  # fmt: skip
    # The server's round 3 was released without anybody, which is a fault of its own.
    found = audit_json("ledger", folder, code=1)
    assert "0 devices were charged for round 3" in found["faults"][0]["message"]
    kit.cut_last_round(folder / "ledgers/server.sqlite")
    for path in folder.glob("ledgers/*.anchors.jsonl"):
        path.unlink()
    (unit,) = audit_json("budget", folder, "--no-check")["units"]
    assert unit["busiest"]["ledger"] in DEVICES[2:5]
    assert unit["epsilon"] == pytest.approx(by_hand([kit.intent(number) for number in (0, 1, 2)], kit.delta))
    assert {name: spent["rounds"] for name, spent in unit["spread"].items()} == {
        "least": 1, "median": 2, "nine tenths": 3, "most": 3,
    }  # fmt: skip
    assert [row["devices"] for row in unit["rounds"]] == [6, 4, 4]


def test_withheld_rounds_cost_nothing_and_open_ones_count(tmp_path, audit_json, kit):
    def outcomes(number: int):
        return {2: kit.outcome(2, "withheld"), 3: None}.get(number, kit.outcome(number))

    folder = kit.write_run(tmp_path / "small", outcomes=outcomes)
    found = audit_json("budget", folder, "--no-check")
    (unit,) = found["units"]
    assert found["open_rounds"] == 7
    assert [row["status"] for row in unit["rounds"]] == ["released", "released", "withheld", "open"]
    assert unit["epsilon"] == pytest.approx(by_hand([kit.intent(number) for number in (0, 1, 3)], kit.delta))
    assert unit["busiest"]["rounds"] == 3


def test_local_epsilon_is_that_of_one_share_and_far_above(run, audit_json, audit, kit):
    (unit,) = audit_json("budget", run, "--no-check")["units"]
    alone = [kit.intent(n, sum_var_int=kit.intent(n).sum_var_int // 4) for n in kit.everybody]
    assert unit["local"]["epsilon"] == pytest.approx(by_hand(alone, kit.delta), rel=1e-6)
    assert unit["local"]["epsilon"] > 2 * unit["epsilon"]
    assert "no protection by itself" in unit["local"]["warning"]
    assert "no protection by itself" in audit("budget", run, "--no-check")[1]


def test_one_share_of_noise_needs_nobody_else(tmp_path, audit_json, audit, kit):
    own = {"intents": lambda number: kit.intent(number, unit="interaction", m_honest=1)}
    folder = kit.write_run(tmp_path / "small", policy={"unit": "interaction"}, **own)
    (unit,) = audit_json("budget", folder, "--no-check")["units"]
    assert unit["unit"] == "interaction"
    assert unit["guarantee"]["assumptions"] == []
    assert unit["local"]["epsilon"] == unit["epsilon"]
    assert "Local epsilon" not in audit("budget", folder, "--no-check")[1]


def test_two_units_are_accounted_for_apart(tmp_path, audit_json, kit):
    folder = kit.write_run(tmp_path / "small")
    without = {"intents": lambda number: kit.intent(number, unit="interaction", m_honest=1, sum_var_int=4096**2)}
    more = kit.write_run(tmp_path / "more", policy={"unit": "interaction", "budget_nano": 10**11}, **without)
    for number in (0, 1):
        book = more / f"ledgers/shard-{number:04}.sqlite"
        book.unlink()
        names = {f"{name}.interaction": kit.everybody for name in DEVICES[3 * number : 3 * number + 3]}
        kit.write_book(folder / f"ledgers/shard-{number + 2:04}.sqlite", names,
                       policy={"unit": "interaction", "budget_nano": 10**11}, **without)  # fmt: skip
    kit.write_book(folder / "ledgers/shard-0004.sqlite", {"server.interaction": kit.everybody},
                   policy={"unit": "interaction", "budget_nano": 10**11}, **without)  # fmt: skip
    units = {unit["unit"]: unit for unit in audit_json("budget", folder, "--no-check")["units"]}
    assert set(units) == {"user", "interaction"}
    assert units["interaction"]["epsilon"] > units["user"]["epsilon"]
    assert units["user"]["devices"] == units["interaction"]["devices"] == 6
    assert units["interaction"]["server"]["ledger"] == "server.interaction"


def test_the_claim_of_the_run_is_compared(run, audit_json, audit):
    (unit,) = audit_json("budget", run, "--no-check")["units"]
    assert unit["claim"]["epsilon"] == pytest.approx(unit["epsilon"], abs=1e-9)
    assert "The run claims epsilon" in audit("budget", run, "--no-check")[1]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({}, 0, ""),
        ({"epsilon": lambda e: e + 0.009}, 0, ""),
        ({"epsilon": lambda e: e - 0.009}, 0, ""),
        ({"epsilon": lambda e: e + 0.02}, 4, "the ledgers give"),
        ({"epsilon": lambda e: e - 0.02}, 4, "the ledgers give"),
        ({"delta": lambda d: d / 10}, 4, "claims delta 1e-06"),
        ({"target_epsilon": lambda t: 1.0}, 3, "the run's target is 1"),
    ],
)
def test_a_claim_that_the_ledgers_do_not_support_has_its_exit_code(run, claim, audit, changes, code, words):
    stated = json.loads((run / "result.json").read_text())["guarantee"]
    claim(**{name: change(stated[name]) for name, change in changes.items()})
    ended, out, err = audit("budget", run, "--no-check")
    assert ended == code
    assert words in err
    assert "Round by round" in out, "the figures are printed all the same"


def test_a_claim_between_the_busiest_device_and_all_rounds_is_supported(tmp_path, audit, kit):
    # A cap of two training rounds: the promise covers them, the server's ledger holds three.
    capped = dict(zip(DEVICES, [(0, 1, 2), (0, 2, 3), (0, 1, 3)] * 2, strict=True))
    folder = kit.write_run(tmp_path / "small", participation=capped)
    promised = by_hand([kit.intent(number) for number in (0, 1, 2)], kit.delta)
    for claimed, code in ((promised, 0), (promised - 0.02, 4), (promised + 0.02, 0), (9.0, 4)):
        kit.write_result(folder, epsilon=claimed)
        assert audit("budget", folder, "--no-check")[0] == code


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"guarantee":1}', '{"guarantee":{"unit":"user"}}', '{"guarantee":{"unit":"user","epsilon":NaN}}'],
)  # fmt: skip
def test_a_damaged_result_is_no_claim(run, audit, text):
    (run / "result.json").write_text(text)
    code, _, err = audit("budget", run, "--no-check")
    assert (code, "result.json is damaged" in err) == (11, True)


def test_a_run_that_disclaims_protection_is_shown_so(run, audit, audit_json):
    text = "no privacy: the noise was made from the seed"
    (run / "result.json").write_text(json.dumps({"guarantee": None, "protection": text}))
    assert text in audit_json("budget", run, "--no-check")["disclaimer"]
    code, out, _ = audit("budget", run, "--no-check")
    assert code == 0
    assert out.startswith("No privacy.")
    (run / "result.json").unlink()
    (run / "resolved.toml").write_text('unit = "user"\n[privacy]\nnoise = "seeded"\n[schedule]\nrounds = 3\n')
    assert "whoever knows the seed" in audit_json("budget", run, "--no-check")["disclaimer"]


def test_a_budget_lowered_below_what_was_spent_ends_in_3(run, audit, kit):
    with LedgerBook(run / "ledgers/shard-0000.sqlite", kit.signer) as book:
        policy = book.state("device-000000").policy
        book.append("device-000000", type(policy)(**{**vars(policy), "budget_nano": 1}))
    code, _, err = audit("budget", run, "--no-check")
    assert code == 3
    assert "device-000000 spent 0.203125" in err


def test_nothing_is_said_about_a_record_that_is_not_intact(run, audit, kit):
    kit.cut_last_round(run / "ledgers/shard-0000.sqlite")
    code, out, _ = audit("budget", run, "--no-check")
    assert (code, out) == (6, "")


@pytest.mark.parametrize("changes", [{"mechanism": "laplace"}, {"sampling": "poisson"}])
def test_a_release_that_is_not_known_is_not_accounted_for(tmp_path, audit, kit, changes):
    folder = kit.write_run(tmp_path / "small", intents=lambda number: kit.intent(number, **changes))
    code, _, err = audit("budget", folder, "--no-check")
    assert code == 2
    assert next(iter(changes.values())) in err


def test_windows_are_listed_with_what_was_spent_in_each_and_epsilon_is_of_all(tmp_path, audit, audit_json, kit):
    path, day = tmp_path / "device.sqlite", 86_400
    kit.write_book(path, {"device": (0, 1)}, notes=False)
    with LedgerBook(path, kit.signer) as book:
        spent = book.state("device").spent_nano
        book.append("device", Window(begins=day, lasts=day))
        book.append("device", Window(begins=2 * day, lasts=day))
        book.append("device", kit.intent(2))
        book.append("device", kit.outcome(2))
        price = book.state("device").counted_nano
    key = kit.signer.public_key().public_bytes_raw().hex()
    (unit,) = audit_json("budget", path, "--key", key, "--no-check")["units"]
    windows = [
        {"begins": day, "ends": 2 * day, "spent_nano": spent},
        {"begins": 2 * day, "ends": 3 * day, "spent_nano": price},
    ]
    assert unit["windows"] == windows
    assert (unit["busiest"]["spent_nano"], unit["busiest"]["counted_nano"]) == (spent + price, price)
    assert unit["epsilon"] > unit["rounds"][1]["epsilon"]
    assert "in 2 windows of a budget of 8.000 each" in audit("budget", path, "--key", key, "--no-check")[1]
    code, out, _ = audit("ledger", path, "--key", key, "--device", "device")
    assert code == 0
    assert "1970-01-03 00:00 to 1970-01-04 00:00" in out
    assert audit_json("ledger", path, "--key", key, "--device", "device")["device"][0]["windows"] == windows


def test_an_empty_ledger_spent_nothing(tmp_path, audit, kit):
    path = tmp_path / "device.sqlite"
    kit.write_book(path, {"device": ()})
    code, out, _ = audit("budget", path, "--key", kit.signer.public_key().public_bytes_raw().hex())
    assert code == 0
    assert "Nothing has been spent of epsilon" in out


def test_a_plan_projects_to_what_the_finished_run_spends(tmp_path, run, audit_json, kit):
    folder = kit.write_run(tmp_path / "new" / "small", participation=dict.fromkeys(DEVICES, (0, 1)))
    for path in folder.glob("ledgers/*.anchors.jsonl"):
        path.unlink()
    server = folder / "ledgers/server.sqlite"
    for _ in (3, 2):
        kit.cut_last_round(server)
    (unit,) = audit_json("plan", folder)["units"]
    assert (unit["rounds"], unit["charged"], unit["to_come"]) == (3, 1, 2)
    (finished,) = audit_json("budget", run, "--no-check")["units"]
    assert unit["projected"]["epsilon"] == finished["epsilon"]
    assert unit["projected_nano"] == finished["busiest"]["spent_nano"]
    assert unit["local"]["epsilon"] == finished["local"]["epsilon"]
    assert [(terms["first"], terms["last"]) for terms in unit["terms"]] == [(0, 0), (1, 1)]


def test_a_plan_counts_the_cap(run, audit_json):
    (run / "resolved.toml").write_text(
        'unit = "user"\n[schedule]\nrounds = 20\nparticipation = 0.5\n[privacy]\ncap = 5\n'
    )
    (unit,) = audit_json("plan", run)["units"]
    assert (unit["cap"], unit["to_come"]) == (5, 2)


def test_a_schedule_beyond_the_budget_ends_in_3(run, audit, kit):
    (run / "resolved.toml").write_text('unit = "user"\n[schedule]\nrounds = 2000\n')
    code, out, err = audit("plan", run)
    assert code == 3
    assert "devices will refuse the last rounds" in err
    assert "will have been spent" in out


def test_a_plan_without_rounds_refers_to_the_planner(tmp_path, run, audit, kit):
    folder = kit.write_run(tmp_path / "new" / "small", participation=dict.fromkeys(DEVICES, (0,)))
    for path in folder.glob("ledgers/*.anchors.jsonl"):
        path.unlink()
    for _ in (3, 2, 1):
        kit.cut_last_round(folder / "ledgers/server.sqlite")
    for target in (folder, run / "ledgers/shard-0000.sqlite"):
        code, _, err = audit("plan", target)
        assert code == 2
        assert "palate plan" in err
    (run / "resolved.toml").write_text("rounds = 3\n")
    assert audit("plan", run)[0] == 11
