"""The owner's commands, from the terminal to the vault and back."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.client.owner.device import OwnerDevice
from palate.client.vault import ROUNDS, Vault
from palate.client.vault.history import History, Interaction

COMMANDS = (
    "recommend", "add", "like", "dislike", "hide", "remove", "undo", "history", "search", "profile", "pin", "mute",
    "unpin", "budget", "export", "forget",
)  # fmt: skip


def catalogue_of(owner):
    import polars as pl

    return {row["title"]: row for row in pl.read_parquet(owner.folder.catalogue).iter_rows(named=True)}


def test_a_list_is_as_long_as_asked_and_holds_nothing_that_was_had(owner):
    had = {entry["item"] for entry in owner.json("history", "--n", "0")["entries"]}
    found = owner.json("recommend", "--n", "15")
    assert len(had) == 21
    assert len(found["recommendations"]) == 15
    assert not had & {line["item"] for line in found["recommendations"]}
    assert [line["rank"] for line in found["recommendations"]] == list(range(1, 16))
    scores = [line["score"] for line in found["recommendations"]]
    assert scores == sorted(scores, reverse=True)


def test_somebody_who_had_crime_films_gets_crime_films_and_is_told_why(owner):
    lines = owner.json("recommend")["recommendations"]
    assert sum("Crime" in line["genres"] for line in lines) >= 8
    assert all(line["why"] for line in lines)
    text = owner("recommend")
    assert all(line["title"] in text and line["why"] in text for line in lines)
    assert re.search(r"I would have guessed \d+ of your last 20", text)


def test_both_sums_of_an_explanation_add_up_to_the_score(owner):
    for arguments in ([], ["more horror like casino, from the 90s"], ["--like", "Casino", "--diverse", "0.7"]):
        for line in owner.json("recommend", *arguments, "--explain")["recommendations"]:
            assert abs(sum(term["value"] for term in line["sources"]) - line["score"]) < 1e-5
            assert abs(sum(line["columns"].values()) - line["score"]) < 1e-5


def test_the_numbers_of_an_explanation_add_up_as_they_are_printed(owner):
    text = owner("recommend", "something lighter like casino", "--explain", "--n", "3")
    blocks = re.findall(r"score (-?[\d.]+), by what [^\n]*\n((?: +[+-][\d.]+ [^\n]*\n?)+)", text)
    assert len(blocks) == 6
    for score, terms in blocks:
        values = [float(value) for value in re.findall(r"^ +([+-][\d.]+) ", terms, re.MULTILINE)]
        assert len(values) > 1
        assert abs(sum(values) - float(score)) < 1e-9


def test_a_request_is_said_back_with_what_was_not_understood(owner):
    found = owner.json("recommend", "crime films from the 90s like casino, zorgle")
    assert found["not_understood"] == ["zorgle"]
    assert "like Casino (1995)" in found["understood"]
    assert "from 1990 to 1999" in found["understood"]
    for line in found["recommendations"]:
        assert 1990 <= line["year"] <= 1999
        assert line["title"] != "Casino (1995)"
    assert "not understood: zorgle" in owner("recommend", "zorgle")


def test_options_filter_as_they_say(owner):
    lines = owner.json("recommend", "--genre", "horror", "--genre", "War", "--year", "1980s", "--n", "5")
    assert lines["recommendations"]
    for line in lines["recommendations"]:
        assert {"Horror", "War"} & set(line["genres"])
        assert 1980 <= line["year"] <= 1989
    newest = max(row["year"] for row in catalogue_of(owner).values())
    assert all(line["year"] >= newest - 1 for line in owner.json("recommend", "--new-only")["recommendations"])
    light = owner.json("recommend", "--mood", "lighter")
    assert light["understood"] == "light"
    assert all("Comedy" in line["genres"] for line in light["recommendations"])
    comedies = [sum("Comedy" in line["genres"] for line in each["recommendations"])
                for each in (owner.json("recommend"), light)]  # fmt: skip
    assert comedies[1] > comedies[0]


def test_an_empty_answer_says_so(owner):
    text = owner("recommend", "--year", "1901")
    assert "0 of 10: nothing else is left" in text
    assert "nothing fits" in text


@pytest.mark.parametrize("said", ["like", "dislike", "hide", "add"])
def test_feedback_changes_the_next_list_at_once_and_undo_brings_the_old_one_back(owner, said):
    before = owner.titles("--n", "12")
    answer = owner.json(said, before[0])
    assert (answer["title"], answer["changed"]) == (before[0], True)
    after = owner.titles("--n", "12")
    assert before[0] not in after
    if said != "hide":
        assert after != before[1:] + after[-1:]  # its like have moved too
    assert owner.json("undo")["undone"] == 1
    assert owner.titles("--n", "12") == before
    assert owner.json("undo")["undone"] == 0


def test_undo_takes_back_what_was_done_once_however_many_steps_it_took(owner):
    title = owner.titles()[0]
    owner("dislike", title)
    disliked = owner.titles()
    owner("like", title)
    owner("pin", "war")
    owner("mute", "war")
    assert owner.json("undo")["undone"] == 1
    assert "genre: War is pinned already" in owner("pin", "war")
    assert owner.json("undo", "2")["undone"] == 2
    assert owner.titles() == disliked
    assert owner.json("history")["marks"] == {catalogue_of(owner)[title]["item"]: "dislike"}


def test_undo_takes_back_all_of_an_action_or_nothing_and_counts_what_it_took_back(owner):
    with OwnerDevice.opened(owner.folder) as device:
        device.say("hide", "film-000")
        device.say("like", "film-000")  # two steps: the mark goes, and an entry comes
        for number in range(100, 131):
            device.say("hide", f"film-{number:03}")
        before = len(device.entries())
        assert device.undo(32) == 31
        assert device.history.marks() == {}
        assert (len(device.entries()), device.entries()[-1].item) == (before, "film-000")
        assert device.undo() == 0
        for said in ("hide", "like"):
            for number in range(100, 120):
                device.say(said, f"film-{number:03}")
        assert device.undo(20) == 16
        assert (len(device.entries()), len(device.history.marks())) == (before + 4, 16)


def test_a_moment_that_no_calendar_has_does_not_keep_the_history_from_being_shown(owner):
    with Vault.open(owner.folder.vault) as vault:
        History(vault).add("film-000", time=1_700_000_000_000_000)
    assert "\n            Heat (1995)" in owner("history")


def test_what_another_program_did_meanwhile_is_taken_back_first(owner):
    owner("like", "Casino")
    with Vault.open(owner.folder.vault) as vault:
        History(vault).add_many([Interaction(item="film-100"), Interaction(item="film-101")])
    assert owner.json("history")["interactions"] == 24
    assert owner.json("undo")["undone"] == 1
    assert owner.json("history")["interactions"] == 22
    assert owner.json("undo", "5")["undone"] == 1
    assert owner.json("history")["interactions"] == 21


def test_saying_it_again_changes_nothing_and_removing_forgets_all_of_it(owner):
    assert owner.json("dislike", "Casino")["changed"]
    assert not owner.json("dislike", "Casino")["changed"]
    assert "is disliked already" in owner("dislike", "Casino")
    assert not owner.json("hide", "Casino")["changed"]
    assert owner("hide", "Casino").strip() == "Casino (1995) is disliked already, so it is not shown"
    assert owner.json("remove", "Casino")["changed"]
    assert owner.json("history")["marks"] == {}
    assert owner("remove", "Casino").strip() == "Casino (1995) is not in your history"
    before = owner.titles()
    owner("remove", "film-009")
    assert owner.json("history")["interactions"] == 20
    owner("undo")
    assert owner.titles() == before


def test_what_was_imported_by_its_title_can_be_removed_listed_or_not(owner, tmp_path):
    with Vault.open(owner.folder.vault) as vault:
        History(vault).add_many([Interaction(item="title:Casino (1995)"), Interaction(item="title:Unheard of")])
    assert "Casino (1995)" not in owner.titles("--n", "240")
    assert "Unheard of   (hand)   not in the catalogue" in owner("history")
    assert owner.json("recommend")["table_notes"] == [
        "not in this catalogue, and kept for a later one: 1 of your history"
    ]
    with Vault.open(owner.folder.vault) as vault:
        History(vault).mark("title:Unheard of", "hide")
    assert "hidden      Unheard of" in owner("history")
    owner("undo")
    owner("add", "Casino (1995)")
    assert owner.json("remove", "casino")["changed"]
    assert "Casino (1995)" in owner.titles("--n", "240")
    assert owner.json("remove", "unheard of") == {
        "said": "forget",
        "item": "title:Unheard of",
        "title": "unheard of",
        "changed": True,
    }
    assert owner.json("history")["interactions"] == 21
    assert owner.json("undo", "2")["undone"] == 2
    assert owner.json("history")["interactions"] == 24


def test_an_import_is_matched_with_the_catalogue_that_is_there_though_no_fleet_gave_it(owner, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("title,stars\nCasino (1995),4\nUnheard of,2\n", encoding="utf-8")
    text = owner("import", str(path), "--yes")
    assert "1 not in it; kept, and looked for again in a later one\n    Unheard of" in text
    assert "columns read: title as title, stars as rating" in text
    entries = owner.json("history")["entries"]
    assert [entry["item"] for entry in entries[-2:]] == ["film-002", "title:Unheard of"]
    assert owner.json("import", str(path)) == {
        "imported": False,
        "files": {"mine.csv": ""},
        "not_read": [],
        "rows": 2,
        "exact": 1,
        "likely": 0,
        "unknown": 1,
        "examples": {"exact": [["Casino (1995)", "Casino (1995)"]], "likely": [], "unknown": [["Unheard of", ""]]},
        "added": 0,
        "changed": 0,
        "unchanged": 2,
        "columns": {"title": "title", "rating": "stars"},
        "passed_over": [],
        "left_out": {},
        "dropped": 0,
        "reasons": [],
        "notes": ["stars of mine.csv is read as ratings from 1 to 5; --rating-scale says otherwise"],
    }


def test_titles_are_found_by_key_by_name_and_with_a_slip(owner):
    assert owner.json("add", "the matrix")["title"] == "Matrix, The (1999)"
    assert owner.json("add", "Cassino (1995)", "--liked")["title"] == "Casino (1995)"
    assert owner.json("add", "film-004", "--disliked")["title"] == "Ran (1985)"
    assert owner.json("add", "heat (1986)")["item"] == "film-001"
    assert [found["item"] for found in owner.json("search", "heat")["matches"]][:2] in (
        ["film-000", "film-001"],
        ["film-001", "film-000"],
    )
    assert "Casino (1995)" in owner("search", "casi")


def test_an_unclear_title_is_asked_about_and_never_guessed(owner, monkeypatch):
    code, text = owner.ends("add", "Heat")
    assert code == 2
    assert "Heat (1995)" in text
    assert "Heat (1986)" in text
    assert owner.json("history")["interactions"] == 21
    monkeypatch.setattr("palate.cli.terminal.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert "added to your history" in owner("add", "Heat", typed="2\n")
    assert owner.ends("like", "Heat", typed="0\n")[0] == 2
    assert owner.json("history")["interactions"] == 22


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "--year", "1999-1990"], "end before they begin"),
        (["recommend", "--year", "lately"], "write 1995"),
        (["recommend", "--genre", "opera"], "no genre or decade 'opera'"),
        (["recommend", "--mood", "zorgle"], "no mood"),
        (["recommend", "--mood", "heat"], "no mood"),
        (["recommend", "--like", "qqqqqqqq"], "no title matches"),
        (["recommend", "--like", ""], "no title matches"),
        (["recommend", "x" * 501], "at most 500"),
        (["recommend", "--diverse", "2"], ""),
        (["recommend", "--diverse", "nan"], "from 0 to 1"),
        (["recommend", "--n", "0"], ""),
        (["recommend", "--n", "501"], ""),
        (["add", "Casino", "--liked", "--disliked"], "both given"),
        (["like", "qqqqqqqq"], "palate client search"),
        (["pin", "opera"], "it has Comedy"),
        (["undo", "0"], ""),
        (["budget"], "no fleet"),
    ],
)
def test_wrong_input_ends_with_code_2_and_changes_nothing(owner, arguments, words):
    code, text = owner.ends(*arguments)
    assert code == 2
    assert words in text
    assert owner.json("undo")["undone"] == 0


def test_pins_and_mutes_count_in_lists_and_show_in_the_profile(owner):
    def share(genre):
        return sum(genre in line["genres"] for line in owner.json("recommend", "--n", "20")["recommendations"])

    before = share("Horror")
    assert owner.json("pin", "horror") == {"facet": "genre: Horror", "setting": "pin", "changed": True}
    assert share("Horror") > before
    profile = owner.json("profile")
    assert {one["facet"] for one in profile["interests"] if one["setting"] == "pinned"} == {"genre: Horror"}
    assert "pinned: Horror" in owner("profile")
    crime = share("Crime")
    owner("mute", "genre: crime")
    assert share("Crime") < crime
    owner("unpin", "horror")
    owner("mute", "90s")
    assert "muted" in owner("profile")
    assert owner.json("undo", "4")["undone"] == 4
    assert share("Horror") == before


def test_the_profile_is_drawn_to_what_was_had(owner):
    profile = owner.json("profile")
    assert profile["interests"][0]["facet"] == "genre: Crime"
    assert profile["sentence"].startswith("drawn to Crime")
    assert profile["history"] == 21


def test_without_a_device_the_next_step_is_named(owner, tmp_path):
    for command in (["recommend"], ["like", "Casino"], ["profile"], ["history"], ["undo"]):
        result = CliRunner().invoke(client_app, [*command, "--folder", str(tmp_path / "nobody")])
        assert type(result.exception).__name__ == "NoVault"
        assert "palate client try" in result.exception.hint
        assert not (tmp_path / "nobody").exists()


def test_a_title_cannot_move_the_cursor(owner):
    for arguments in (["search", "31mred"], ["recommend", "--n", "240"]):
        text = owner(*arguments)
        assert "Red (1994)" in text
        assert "\x1b" not in text


def test_the_agent_and_the_owner_use_one_vault_at_the_same_time(owner):
    stop, errors = threading.Event(), []

    def agent():
        try:
            with Vault.open(owner.folder.vault) as vault:
                turn = 0
                while not stop.is_set():
                    vault.put(ROUNDS, f"answer/{turn % 5}", bytes(20_000))
                    turn += 1
        except Exception as error:  # shown by the assertion
            errors.append(error)

    thread = threading.Thread(target=agent)
    thread.start()
    try:
        for _ in range(5):
            title = owner.titles()[0]
            owner("like", title)
            assert title not in owner.titles()
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert owner.json("history")["interactions"] == 26


def test_recommending_loads_no_large_library(owner):
    owner("recommend", "more crime")  # prepares table and titles once
    code = (
        "import sys\nfrom palate.cli.client import client_app\n"
        f"try:\n    client_app(['recommend', 'more crime', '--explain', '--folder', {str(owner.home)!r}])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'polars', 'flwr', 'scipy', 'opacus', 'dp_accounting', 'rich', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_an_example(command):
    output = CliRunner().invoke(client_app, [command, "--help"]).stdout
    assert f"Example: palate client {command}" in output
    assert "--json" in output


def test_those_who_hated_and_those_who_loved_the_same_get_other_lists(owner, tmp_path):
    films = owner.titles("--n", "12")
    lists = {}
    for rating in ("0.5", "5"):
        path = tmp_path / f"{rating}.csv"
        path.write_text("title,rating\n" + "".join(f'"{film}",{rating}\n' for film in films), encoding="utf-8")
        owner("import", str(path), "--yes")
        lists[rating] = owner.titles("--n", "10")
        assert not set(lists[rating]) & set(films), "what was rated is not recommended"
        assert ("rated low" in owner("history")) == (rating == "0.5")
        owner("undo")
    assert lists["0.5"] != lists["5"]


def test_the_scale_of_ratings_can_be_said(owner, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("title,rating\nCasino (1995),5\n", encoding="utf-8")
    owner("import", str(path), "--yes", "--rating-scale", "1-20")
    assert "Casino (1995)   (import, rated low)" in owner("history")
