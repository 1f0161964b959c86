"""`palate client` from the first command to the last, and what it says when something is wrong."""

from __future__ import annotations

import stat

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.rounds import RoundOver
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.privacy.enrolment import EnrolmentRequest


@pytest.fixture
def terminal(tmp_path, terminal_at):
    return terminal_at(tmp_path / "home")


@pytest.fixture
def operator(fleet_of):
    """An operator who has enrolled nobody but two strangers."""
    return fleet_of(2)


@pytest.fixture
def welcome_file(terminal, operator, tmp_path):
    terminal("init")
    terminal("enrol", "--request", str(tmp_path / "request.json"))
    request = EnrolmentRequest.open((tmp_path / "request.json").read_bytes())
    path = tmp_path / "welcome.zip"
    path.write_bytes(operator.welcome(request.identity_key).pack(operator.catalogue))
    return path


@pytest.fixture
def joined(terminal, welcome_file):
    terminal("enrol", "--welcome", str(welcome_file), "--yes", "--smallest-cohort", "2")
    return terminal


def test_a_device_is_made_once_and_keeps_its_folder_to_itself(terminal):
    made = terminal.json("init")
    assert (len(made["device"]), made["vault_key"]) == (16, "file")
    assert stat.S_IMODE(terminal.home.stat().st_mode) == 0o700
    assert terminal.ends("init")[0] == 14
    found = terminal.json("status")
    assert (found["device"], found["fleet"], found["budget"], found["rounds"]) == (made["device"], None, None, [])
    assert "asks one to take this device in" in terminal("status")
    assert (terminal.home / "public.key").read_text("ascii").strip() == found["ledger_key"]


def test_a_folder_that_others_can_read_is_not_used(terminal):
    terminal.home.mkdir(mode=0o755)
    terminal.home.chmod(0o755)
    assert terminal.ends("init") == (
        12,
        f"{terminal.home} has mode 0755, others can read it\nchmod 700 {terminal.home}",
    )


def test_enrolling_pins_what_the_welcome_says_and_status_shows_it(joined, welcome_file):
    status = joined.json("status")
    assert (status["fleet"]["name"], status["fleet"]["guarantee_against_the_server"]) == ("films", "malicious")
    assert status["fleet"]["limits"]["smallest_cohort"] == 2
    assert status["budget"]["spent_nano"] == 0 < status["budget"]["budget_nano"]
    assert (status["budget"]["epsilon"], status["budget"]["unit"]) == (8.0, "user")
    text = joined("status")
    assert "films at 127.0.0.1:9092" in text
    assert "0% spent; epsilon 0.000 of 8 at delta 1e-05 per user" in text
    text = joined("status", "--explain")
    for words in ("per user", "delta 1e-05", "zero-out", "no amplification is claimed", "secure aggregation holds"):
        assert words in text.partition("budget")[2]
    assert status["budget"]["adjacency"].startswith("zero-out")
    assert len(status["budget"]["assumptions"]) == 3
    again = joined("enrol", "--welcome", str(welcome_file), "--yes", "--smallest-cohort", "2")
    assert "joined fleet films" in again


@pytest.mark.parametrize("which", ["request", "both", "neither"])
def test_enrol_takes_one_of_its_two_files(joined, tmp_path, which):
    files = {"request": ["--request", str(tmp_path / "new.json")], "neither": []}
    files["both"] = [*files["request"], "--welcome", str(tmp_path / "welcome.zip")]
    code, text = joined.ends("enrol", *files[which])
    assert code == 2
    assert ("leave it first" if which == "request" else "one of --request and --welcome") in text


def test_nobody_is_enrolled_without_agreeing(terminal, welcome_file):
    code, text = terminal.ends("enrol", "--welcome", str(welcome_file), "--smallest-cohort", "2")
    assert (code, text.partition("\n")[0]) == (2, "there is nobody to compare the fingerprints")
    assert terminal.json("status")["fleet"] is None


def test_a_fleet_of_smaller_rounds_or_a_larger_budget_needs_to_be_agreed_by_name(terminal, operator, tmp_path):
    terminal("init")
    terminal("enrol", "--request", str(tmp_path / "request.json"))
    key = EnrolmentRequest.open((tmp_path / "request.json").read_bytes()).identity_key
    path = tmp_path / "welcome.zip"
    path.write_bytes(operator.welcome(key, epsilon=20.0).pack(operator.catalogue))
    code, text = terminal.ends("enrol", "--welcome", str(path), "--yes")
    assert (code, "--epsilon 20" in text) == (2, True)
    code, text = terminal.ends("enrol", "--welcome", str(path), "--yes", "--epsilon", "4")
    assert (code, "--smallest-cohort 2" in text) == (2, True)
    terminal("enrol", "--welcome", str(path), "--yes", "--epsilon", "4", "--smallest-cohort", "2")
    assert terminal.json("limits")["epsilon"] == 4.0


def test_a_welcome_for_somebody_else_or_a_damaged_one_changes_nothing(terminal, operator, welcome_file, tmp_path):
    other = tmp_path / "other.zip"
    stranger = operator.devices[0].member.keys.signing.public_key()
    other.write_bytes(operator.welcome(stranger).pack(operator.catalogue))
    for path, words in ((other, "is for device"), (welcome_file, "damaged"), (tmp_path / "none.zip", "No such file")):
        if path == welcome_file:
            path.write_bytes(path.read_bytes()[:-10])
        code, text = terminal.ends("enrol", "--welcome", str(path), "--yes", "--smallest-cohort", "2")
        assert code in (2, 10)
        assert words in text
    assert terminal.json("status")["fleet"] is None


def test_imports_are_counted_and_unknown_items_are_shown_and_kept(joined, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("title,rating\nTitle 3,4\nUnheard of,5\n", encoding="utf-8")
    code, text = joined.ends("import", str(path))
    assert (code, text.splitlines()[-2:]) == (
        2,
        ["nothing was imported: there is nobody to agree", "look at the preview, then add --yes"],
    )
    assert joined.json("status")["interactions"] == 0
    text = joined("import", str(path), "--yes")
    assert "2 rows about 2 items" in text
    assert "1 not in it; kept, and looked for again in a later one\n    Unheard of" in text
    assert "2 new, 0 changed, 0 as they were" in text
    assert joined.json("import", str(path))["added"] == 0
    with Vault.open(DeviceFolder(joined.home).vault) as vault:
        assert [entry.item for _, entry in History(vault).in_order()] == ["i3", "title:Unheard of"]
    assert joined.json("status")["interactions"] == 2


def test_wrong_files_and_missing_devices_end_with_a_hint(joined, tmp_path, terminal_at):
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert joined.ends("import", str(tmp_path / "wrong.csv"))[0] == 10
    nobody = terminal_at(tmp_path / "nobody")
    for command in (["status"], ["limits"], ["leave", "--yes"], ["import", "x.csv"], ["join"]):
        code, text = nobody.ends(*command)
        assert code in (11, 14), command
        assert len(text.splitlines()) == 2, text


def test_limits_are_changed_one_by_one_and_noted_in_the_ledger(joined):
    changed = joined.json("limits", "--epsilon", "4", "--least-tau", "0.667", "--most-rounds-a-day", "5")
    assert changed.pop("reading")["unit"] == "user"
    assert changed == {
        "epsilon": 4.0,
        "delta": 1e-5,
        "smallest_cohort": 2,
        "least_tau_thousandths": 667,
        "least_gamma_thousandths": 0,
        "least_own_noise": 0.0,
        "most_rounds_a_day": 5,
        "least_parties": 1,
        "every_seconds": 0,
    }
    half = joined.json("status")["budget"]["budget_nano"]
    joined("limits", "--epsilon", "8")
    assert joined.json("status")["budget"]["budget_nano"] > 2 * half
    assert "smallest_cohort           2" in joined("limits")
    for wrong in (["--epsilon", "-1"], ["--least-tau", "0.4"], ["--least-tau", "0.66667"], ["--smallest-cohort", "1"]):
        assert joined.ends("limits", *wrong)[0] == 2
    assert joined.json("limits")["least_tau_thousandths"] == 667


def test_leaving_keeps_ledger_and_history_and_takes_the_keys(joined, tmp_path, operator):
    path = tmp_path / "mine.csv"
    path.write_text("item\ni1\n", encoding="utf-8")
    joined("import", str(path), "--yes")
    before = joined.json("status")
    code, text = joined.ends("leave")
    assert (code, text.partition("\n")[0]) == (2, "there is nobody to confirm")
    assert joined.json("leave", "--yes") == {"left": "films"}
    after = joined.json("status")
    assert after["fleet"] is None
    assert after["device"] != before["device"]  # the next fleet cannot tell
    assert (after["ledger_key"], after["interactions"]) == (before["ledger_key"], 1)
    assert joined.ends("leave", "--yes")[0] == 2
    joined("enrol", "--request", str(tmp_path / "again.json"))


def test_spending_outlives_a_fleet(fleet_of, terminal_at):
    fleet = fleet_of(2)
    plan, device = fleet.plan(0), fleet.devices[0]
    device.rounds.handle(fleet.ask(plan), plan=plan)
    device.kill()
    terminal = terminal_at(device.folder.home)
    spent = terminal.json("status")["budget"]["spent_nano"]
    terminal("leave", "--yes")
    key = EnrolmentRequest.open(_request(terminal)).identity_key
    welcome = fleet.path / "welcome.zip"
    welcome.write_bytes(fleet.welcome(key).pack(fleet.catalogue))
    terminal("enrol", "--welcome", str(welcome), "--yes", "--smallest-cohort", "2")
    assert terminal.json("status")["budget"]["spent_nano"] == spent > 0


def _request(terminal) -> bytes:
    path = terminal.home / "request.json"
    terminal("enrol", "--request", str(path))
    return path.read_bytes()


def test_a_pause_is_shown_until_it_is_over(joined):
    assert joined.json("status")["paused"] is False
    assert "paused" in joined("pause")
    assert joined.json("status")["paused"] is True
    assert "no round is begun until palate client pause --off" in joined("status")
    assert joined.json("pause", "--off") == {"paused": False}
    assert joined.json("status")["paused"] is False
    assert joined.json("pause", "--off") == {"paused": False}


def test_status_shows_rounds_what_was_sent_and_refusals(fleet_of, terminal_at):
    fleet = fleet_of(2)
    first, second = fleet.plan(0), fleet.plan(1)
    fleet.finish(first, fleet.run_round(first), model=second.table_hash)
    device = fleet.devices[0]
    device.rounds.handle(fleet.ask(second), plan=second)
    old = fleet.plan(0, run="run-1", learned=first.learned + 1)
    with pytest.raises(RoundOver, match="was begun before"):
        device.rounds.handle(fleet.ask(old), plan=old)
    terminal = terminal_at(device.folder.home)
    status = terminal.json("status")
    done, under_way = status["rounds"]
    assert (done["ended"], done["receipt"]["model_hash"]) == ("released", second.table_hash)
    assert done["bytes_sent"] == sum(each["bytes"] for each in done["sent"].values())
    assert set(done["sent"]) == {"advertise", "share", "mask", "confirm", "reveal"}
    assert (under_way["ended"], list(under_way["sent"])) == ("open", ["advertise"])
    assert status["table"] == {"hash": second.table_hash, "items": 12}
    assert status["budget"]["spent_epsilon"] == under_way["total_epsilon"]
    text = terminal("status")
    assert "refused" in text
    assert f"masked vector sha256 {done['sent']['mask']['sha256'][:16]}" in text


def test_only_one_agent_takes_part_with_a_folder(joined):
    with DeviceFolder(joined.home).locked():
        code, text = joined.ends("join")
    assert code == 11
    assert "another program takes part" in text


@pytest.mark.parametrize("command", ["init", "enrol", "import", "join", "leave", "limits", "status"])
def test_every_command_has_help_and_an_example(command):
    output = CliRunner().invoke(client_app, [command, "--help"]).stdout
    assert f"Example: palate client {command}" in output
