"""The page for a privacy officer: self-contained, well-formed, and the worst news first."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Outline(HTMLParser):
    """Identifiers, references and text of a page; fails on a tag that closes another."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        self.references += [str(values[name]) for name in ("src", "href", "xlink:href") if values.get(name)]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " "


@pytest.fixture
def page(audit, tmp_path):
    """Run an audit with --html and return the page as text."""

    def write(*arguments: object, code: int = 0) -> str:
        path = tmp_path / "audit.html"
        ended, _, err = audit(*arguments, "--html", path)
        assert ended == code, err
        assert f"written: {path}" in err
        return path.read_text("utf-8")

    return write


def test_the_page_is_well_formed_and_needs_nothing_else(page, run):
    text = page("budget", run, "--no-check")
    outline = Outline(text)
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(reference.startswith("#") for reference in outline.references)
    assert {reference[1:] for reference in outline.references} <= set(outline.ids)
    assert "<script" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_the_page_says_what_a_privacy_officer_asks(page, run):
    text = Outline(page("budget", run, "--no-check")).text
    (epsilon,) = set(re.findall(r"Epsilon (\d\.\d{3}) at delta 1e-05 per user was spent", text))
    for words in (
        "The record of small is intact.",
        "At most epsilon 8.000 at delta 1e-05, for one person",
        "zero-out: the unit's contribution is replaced by zeros",
        "2,981-fold",
        f"The run claims epsilon {epsilon} at delta 1e-05; its target was 8.",
        "Each of 6 devices",
        "The key is in the ledger's folder",
        "secure aggregation holds",
        "One device's own message.",
        "That is no protection by itself.",
        "Amplification by sampling: none claimed",
        "6 of 6",
    ):
        assert words in text, words


def test_the_same_findings_give_the_same_page(page, run):
    assert page("budget", run, "--no-check") == page("budget", run, "--no-check")


def test_a_record_that_is_not_intact_is_the_headline_and_gives_no_figures(page, run, kit):
    kit.cut_last_round(run / "ledgers/shard-0000.sqlite")
    for command in ("ledger", "budget"):
        text = page(command, run, code=6)
        assert '<div class="banner warning"' in text
        shown = Outline(text).text
        assert "cannot be relied on" in shown
        assert "an anchor saw 27" in shown
        assert "What was spent" not in shown
        assert "was spent by" not in shown


def test_a_broken_promise_is_the_headline(page, run):
    values = json.loads((run / "result.json").read_text())
    values["guarantee"]["epsilon"] = 1.0
    (run / "result.json").write_text(json.dumps(values))
    text = page("budget", run, "--no-check", code=4)
    assert '<div class="banner warning"' in text
    assert "The promise was not kept." in text
    assert "result.json claims epsilon 1.0000 per user" in text


def test_a_run_without_protection_is_no_success(page, run):
    (run / "result.json").write_text(json.dumps({"guarantee": None, "protection": "noise from the seed"}))
    text = page("budget", run, "--no-check")
    assert '<div class="banner warning"' in text
    assert "No privacy." in text


def test_text_from_a_record_is_escaped(page, tmp_path, kit):
    folder = tmp_path / "<b>evil"
    named = {"run": "<i>run"}
    kit.write_run(folder, intents=lambda n: kit.intent(n, **named), outcomes=lambda n: kit.outcome(n, **named))
    text = page("budget", folder, "--no-check")
    assert "&lt;b&gt;evil" in text
    assert not re.search("<b>evil|<i>run", text)


def test_a_page_in_a_folder_that_does_not_exist_is_refused(audit, run, tmp_path):
    code, _, err = audit("ledger", run, "--html", tmp_path / "no" / "page.html")
    assert (code, "is not a folder" in err) == (12, True)
    assert not Path(tmp_path / "no").exists()
