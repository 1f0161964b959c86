"""Limits and leaving as forms: the same checks and words as the commands, and never by accident."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

from palate.client.fleet import enrolling
from palate.client.fleet.limit_fields import FIELDS, as_text, changes_in, from_text
from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.status import status_of
from palate.client.owner.forgetting import forget_device
from palate.client.vault import Vault
from palate.client.wishes.reader import MAX_LENGTH
from palate.errors import ConfigError
from palate.privacy.ledger.verify import verify_ledger

from .conftest import Visitor, visitor


@pytest.fixture
def member(fleets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    """The owner of a device of a fleet, before the page."""
    monkeypatch.setenv("PALATE_KEYRING", "file")
    fleet = fleets.Fleet(tmp_path, 2)
    for device in fleet.devices:
        device.kill()
    with Vault.open(fleet.devices[0].folder.vault) as vault:
        found = visitor(fleet.devices[0].folder, vault)
        yield found
        found.client.close()


def form_on(page: str) -> dict[str, str]:
    """Fields of the form of limits, as a browser would send them."""
    form = page.partition('action="./limits#limits"')[2].partition("</form>")[0]
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form))
    del fields["token"]
    return {name: unescape(value) for name, value in fields.items()}


def limits_of(owner: Visitor) -> OwnerLimits:
    return enrolling.membership_of(owner.session.device.folder)[0]


def test_the_form_shows_the_limits_as_they_are_and_sends_them_back_unchanged(member: Visitor) -> None:
    before = limits_of(member)
    fields = form_on(member.get("privacy").text)
    assert {name: fields[name] for name in ("epsilon", "delta", "smallest_cohort", "least_tau")} == {
        "epsilon": "8", "delta": "1e-05", "smallest_cohort": "2", "least_tau": "0.5",
    }  # fmt: skip
    assert "Your limits are as they were" in member.said("limits", **fields)
    assert limits_of(member) == before


def test_limits_are_changed_by_the_form_and_noted_in_the_ledger(member: Visitor) -> None:
    fields = form_on(member.get("privacy").text)
    wanted = {"epsilon": "4.125", "smallest_cohort": " 7 ", "least_tau": "0.667", "least_gamma": "0.1", "every": "30d"}
    text = member.said("limits", **fields | wanted | {"least_own_noise": "0.25", "most_rounds_a_day": "5"})
    assert "Your limits are changed" in text
    limits = limits_of(member)
    assert limits.to_values() == {
        "epsilon": 4.125, "delta": 1e-5, "smallest_cohort": 7, "least_tau_thousandths": 667,
        "least_gamma_thousandths": 100, "least_own_noise": 0.25, "most_rounds_a_day": 5, "least_parties": 1,
        "every_seconds": 30 * 86_400,
    }  # fmt: skip
    assert (form_on(text)["epsilon"], form_on(text)["every"]) == ("4.125", "30d")
    assert "used up in every window, the budgets add up to epsilon" in text.replace("Used", "used")
    folder = member.session.device.folder
    public = bytes.fromhex(folder.public_key.read_text())
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    policy = verify_ledger(folder.ledger, "device", Ed25519PublicKey.from_public_bytes(public)).state.policy
    promised = next(iter(limits.promises.values())).policy(smallest_cohort=7)
    assert policy == promised


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epsilon": "0"}, "epsilon is 0.0, it must be above 0 and at most 1e+06"),
        ({"epsilon": "nan"}, "epsilon is nan"),
        ({"epsilon": "1e-7"}, "out of this filter's range"),
        ({"delta": "a lot"}, "--delta 'a lot' is not a number"),
        ({"smallest_cohort": "2.5"}, "--smallest-cohort '2.5' is not a whole number"),
        ({"smallest_cohort": "9" * 5000}, "is not a whole number"),
        ({"least_tau": "0.6667"}, "--least-tau 0.6667 is not a share of at most three decimals"),
        ({"least_tau": "nan"}, "is not a share"),
        ({"least_gamma": "0.5"}, "least_gamma_thousandths is 500, it must be above -1 and at most 499"),
        ({"most_rounds_a_day": "<b>"}, "--most-rounds-a-day '<b>' is not a whole number"),
        ({"least_own_noise": ""}, "--least-own-noise '' is not a number"),
    ],
)
def test_what_cannot_be_a_limit_is_refused_by_name_and_nothing_changes(
    member: Visitor, wrong: dict[str, str], words: str
) -> None:
    before = limits_of(member)
    fields = form_on(member.get("privacy").text) | {"most_rounds_a_day": "7"} | wrong
    answer = member.post("limits", **fields)
    assert answer.status_code in {400, 409}
    assert "Nothing was changed." in answer.text
    assert words in unescape(answer.text)
    assert "<b>" not in answer.text
    (name,) = wrong
    assert form_on(answer.text)[name] == wrong[name][:MAX_LENGTH]  # as it was typed
    assert limits_of(member) == before
    assert status_of(member.session.device.folder).budget is not None


def test_the_command_refuses_the_same_in_the_same_words(member: Visitor, terminal_at) -> None:
    terminal = terminal_at(member.session.device.folder.home)
    before = limits_of(member)
    for name, text in (("least_tau", "0.6667"), ("epsilon", "0.0"), ("epsilon", "1e-07"), ("least_gamma", "nan")):
        fields = form_on(member.get("privacy").text) | {name: text}
        code, said = terminal.ends("limits", f"--{name.replace('_', '-')}", text)
        assert code != 0
        message, hint = said.splitlines()
        page = unescape(member.post("limits", **fields).text)
        assert message in page
        assert hint in page
    assert limits_of(member) == before


def test_limits_that_changed_meanwhile_are_not_put_back(member: Visitor) -> None:
    fields = form_on(member.get("privacy").text)
    enrolling.change_limits(member.session.device.folder, epsilon=1.0)
    answer = member.post("limits", **fields | {"most_rounds_a_day": "7"})
    assert answer.status_code == 409
    assert "another program changed your limits meanwhile" in answer.text
    assert (limits_of(member).epsilon, limits_of(member).most_rounds_a_day) == (1.0, 100)
    assert member.post("limits", **{"epsilon": "9"}).status_code == 409  # a form that does not say what it is about


def test_limits_and_leaving_wait_for_the_agent(member: Visitor) -> None:
    fields = form_on(member.get("privacy").text)
    with member.session.device.folder.locked():
        for answer in (member.post("limits", **fields | {"epsilon": "4"}), member.post("leave", confirm="yes")):
            assert answer.status_code == 409
            assert "nother program takes part in rounds" in answer.text
    assert limits_of(member).epsilon == 8.0


def test_leaving_needs_the_box_and_shreds_the_keys(member: Visitor) -> None:
    page = member.get("leave").text
    assert "Leave fleet films" in page
    before = status_of(member.session.device.folder)
    for confirm in ("", "no", "YES"):
        answer = member.post("leave", confirm=confirm)
        assert (answer.status_code, "You are still a member." in answer.text) == (400, True)
    assert limits_of(member) is not None
    text = unescape(member.said("leave", confirm="yes", page="privacy"))
    assert "Left fleet films; what was sent before cannot be taken back, and stays charged." in text
    assert "belongs to no fleet" in text
    assert "Your limits" not in text
    after = status_of(member.session.device.folder)
    assert after.device != before.device
    assert after.ledger_key == before.ledger_key
    for answer in (member.get("leave"), member.post("leave", confirm="yes"), member.post("limits", epsilon="4")):
        assert answer.status_code == 400
        assert "his device belongs to no fleet" in answer.text


def test_forms_of_others_change_no_limit_and_leave_no_fleet(member: Visitor) -> None:
    fields = form_on(member.get("privacy").text) | {"epsilon": "1000"}
    for headers, form in (({"origin": "http://evil.example"}, {}), ({}, {"token": "x"})):
        assert member.post("limits", headers, **fields | form).status_code == 403
        assert member.post("leave", headers, **{"confirm": "yes"} | form).status_code == 403
    member.get("leave?confirm=yes")
    assert limits_of(member).epsilon == 8.0


def test_what_was_carried_over_is_said(member: Visitor, fleets: ModuleType, tmp_path: Path) -> None:
    assert "earlier device of yours" not in member.get("privacy").text
    fleet = fleets.Fleet(tmp_path / "fleet", 2)
    plan = fleet.plan(0)
    fleet.finish(plan, fleet.run_round(plan))
    for device in fleet.devices:
        device.kill()
    folder = fleet.devices[0].folder
    forget_device(folder)
    enrolling.begin(folder)
    for words in ("at delta 0.0001 per user", "at delta 1e-05 per user"):
        with Vault.open(folder.vault) as vault:
            owner = visitor(folder, vault)
            text = owner.get("privacy").text
            owner.client.close()
        assert "An earlier device of yours had spent epsilon" in text
        assert words in text
        if "0% spent" not in text and words.startswith("at delta 0.0001"):
            with Vault.open(folder.vault) as vault:
                key = enrolling.DeviceKeys.load(vault).signing.public_key()
            enrolling.accept(folder, fleet.welcome(key), fleet.catalogue, fleet.limits)
    assert f"{100 * status_of(folder).budget.share:.0f}% spent" in text
    assert status_of(folder).budget.share > 0.05


def test_limits_as_text_are_read_back_as_they_are() -> None:
    odd = OwnerLimits(
        epsilon=8.123456789, delta=1.2345678e-5, least_tau_thousandths=667, least_gamma_thousandths=1,
        least_own_noise=1 / 3, most_rounds_a_day=1_000_000, every_seconds=36 * 3600,
    )  # fmt: skip
    for limits in (odd, OwnerLimits(epsilon=8.0, delta=1e-5)):
        assert limits.with_changes(changes_in(from_text(as_text(limits)))) == limits
    assert {field.limit for field in FIELDS} == set(odd.to_values())
    assert [field.option for field in FIELDS][4] == "--least-tau"
    assert changes_in(from_text({})) == {}
    with pytest.raises(ConfigError):
        from_text({"epsilon": "9" * 41})
