"""The report as its readers get it: self-contained, well-formed, honest about privacy, the same every time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from palate.errors import EnvironmentProblem, RunError
from palate.privacy.accounting.guarantee import CrossCheck
from palate.simulation.report import page as page_module
from palate.simulation.report.headline import headline
from palate.simulation.report.page import report_page, write_report
from palate.simulation.report.records import GuaranteeRecord, LocalClaim, NoiseMultipliers, Result
from palate.simulation.report.tables import best_reference, measured
from palate.simulation.run_reader import read_run

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Outline(HTMLParser):
    """Tags, identifiers and references of a page; fails on a tag that closes another."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute)) is not None]

    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def folder(finished_run: SimpleNamespace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run.folder, tmp_path / "demo-run"))


@pytest.fixture(scope="module")
def page(finished_run: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    history = finished_run.finished.split.full_train
    elsewhere = tmp_path_factory.mktemp("pages") / "report.html"
    return write_report(finished_run.folder, output=elsewhere, history=history).read_text("utf-8")


def changed(result: Result, **values: object) -> Result:
    return Result.model_validate(
        result.model_dump() | {"summary": result.summary, "baselines": result.baselines} | values
    )


def test_the_page_is_well_formed_and_its_references_and_identifiers_fit(page: str):
    outline = Outline(page)
    identifiers = outline.values("id")
    assert len(identifiers) == len(set(identifiers))
    targets = [value.removeprefix("#") for name in ("href", "xlink:href") for value in outline.values(name)]
    targets += [part for name in ("aria-labelledby",) for value in outline.values(name) for part in value.split()]
    targets += re.findall(r"url\(#([^)]+)\)", page)
    assert len(targets) > 20
    assert set(targets) <= set(identifiers)


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page: str):
    outline = Outline(page)
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base"}
    assert not outline.values("src")
    assert all(value.startswith("#") for value in outline.values("href"))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page
    assert re.search(r"Content-Security-Policy.*default-src 'none'", page)


def test_every_figure_and_table_can_be_read_aloud(page: str):
    outline = Outline(page)
    charts = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert len(charts) >= 4
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in charts)
    assert page.count("<desc") == len(charts)
    assert all(attrs.get("scope") in {"col", "row"} for tag, attrs in outline.tags if tag == "th")
    assert page.count("<caption>") == page.count("<table")
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("main") == tags.count("h1") == 1
    assert {"header", "nav", "footer"} <= set(tags)


def test_figures_have_no_colour_of_their_own_so_that_the_theme_reaches_them(page: str):
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
        assert "var(--first)" in svg
        assert "font-family" not in svg


def test_text_from_the_data_is_escaped(page: str):
    assert "Film 3 <b>&" not in page
    assert "&lt;b&gt;&amp;" in page


def test_a_run_without_protection_says_so_before_anything_else(page: str):
    said = Outline(page).said()
    assert "No privacy Updates left the devices unprotected" in said
    assert said.index("No privacy") < said.index("In short")
    assert "nothing here may be called private" in said


def test_a_protected_run_states_its_guarantee_and_no_warning(folder: Path):
    run = read_run(folder)
    guarantee = GuaranteeRecord(
        epsilon=3.9991,
        delta=1e-6,
        unit="user",
        adjacency="zero-out of one person",
        accountant="Skellam RDP",
        amplification="none claimed",
        assumptions=("TRUSTED_AGGREGATION", "honest devices"),
        cross_checks=(CrossCheck(accountant="PLD", epsilon=3.7),),
        target_epsilon=4.0,
        noise_multipliers=NoiseMultipliers(popularity=3.0, train=2.0),
        local=LocalClaim(epsilon=800.0, delta=1e-6),
        mechanism="Skellam noise",
        device_rounds=4,
        clip_norm=0.001,
        sensitivity=4096,
        honest_shares=90,
        roster_size=120,
        further=(),
    )
    promised = changed(
        run.result, unit="user", epsilon=4.0, delta=1e-6, protection="user-level DP", guarantee=guarantee
    )
    object.__setattr__(run, "result", promised)
    said = Outline(report_page(run, [], "")).said()
    assert "Differential privacy: epsilon 4.000 at delta 1e-06 per user" in said  # rounded up
    assert "Compared: zero-out of one person." in said
    assert "It holds if: TRUSTED_AGGREGATION; honest devices." in said
    assert "epsilon 800.0 per user: no protection by itself" in said
    assert "sized for 90 honest devices of 120" in said
    assert "No privacy" not in said


def test_the_headline_says_how_often_in_words_and_against_whom(folder: Path, page: str):
    test = read_run(folder).result.summary.test
    said = Outline(page).said()
    share = f"{test.sampled.hit_rate.value:.0%}"
    assert (
        f"Of 100 films, the one that a person really chose next was among the first ten for {share} of 120 people"
        in said
    )
    assert "For comparison: 47% with the most popular items and 59% with the strongest reference, Item kNN." in said
    whole = said.index("In the whole catalogue of 150 films, the one that a person really chose next")
    assert whole < said.index("Of 100 films")  # candidates make every model look good


def test_the_headline_says_what_learning_together_added_and_whether_it_is_shown(folder: Path):
    result = json.loads((folder / "result.json").read_text())
    gained = {"value": 0.051, "se": 0.01, "low": 0.031, "high": 0.071}
    unsure = {"value": -0.004, "se": 0.01, "low": -0.024, "high": 0.016}
    result["gain"] = {"control": "popularity", "full": {"hr@10": gained}, "sampled": {"hr@10": unsure}}
    record = Result.model_validate(result)
    assert "5.1 points more (± 2.0) than with Popularity, which learns nothing together." in headline(record)
    assert (
        headline(record, "sampled")
        .split(". For")[0]
        .endswith(
            "0.4 points fewer (± 2.0) than with Popularity, which learns nothing together: no difference is shown"
        )
    )


def test_the_strongest_reference_is_the_best_of_the_ranking_shown_and_no_private_control(folder: Path):
    result = json.loads((folder / "result.json").read_text())
    knn = result["baselines"]["item_knn"]
    better = json.loads(json.dumps(knn))
    better["test"]["full"]["ndcg@10"] = better["test"]["full"]["intervals"]["ndcg@10"]["value"] = 0.99
    worse_sampled = better["test"]["sampled"]
    worse_sampled["ndcg@10"] = worse_sampled["intervals"]["ndcg@10"]["value"] = 0.01
    result["baselines"] |= {"ease": better | {"label": "EASE"}, "dp_content": better | {"label": "DP content"}}
    record = Result.model_validate(result)
    assert [best_reference(record, ranking).label for ranking in ("full", "sampled")] == ["EASE", "Item kNN"]


def test_a_run_with_its_newest_items_hidden_has_a_row_of_its_own(folder: Path):
    result = json.loads((folder / "result.json").read_text())
    result["hidden"] = {"newest": 5, "test": result["summary"]["validation"]}
    record = Result.model_validate(result)
    labels = [label for label, _ in measured(record, "test")]
    assert labels[:2] == ["Palate (linear)", "The same, newest 5 hidden"]
    assert "The same, newest 5 hidden" not in [label for label, _ in measured(record, "validation")]


def test_tables_set_every_model_beside_the_others_and_say_who_was_skipped(page: str):
    said = Outline(page).said()
    for label in ("Palate (linear)", "Popularity", "Item kNN"):
        assert said.count(label) >= 4
    assert "EASE: skipped, 150 items, at most 100 are practical." in said
    for term in ("HR@10", "NDCG@10", "Recall@20", "Precision@10", "F1@10", "MRR", "Coverage", "Gini", "Novelty"):
        assert term in said


def test_examples_show_history_list_and_the_item_really_chosen(folder: Path, page: str, finished_run: SimpleNamespace):
    said = Outline(page).said()
    assert "✓ really chosen next" in said
    assert "chosen because the list was right" in said
    people = re.findall(r"Person (viewer-\d+), (\d+) films so far", said)
    assert len(people) == 5
    lengths = finished_run.finished.split.full_train.lengths
    assert [int(count) for _, count in people] == [lengths[int(name[-3:])] for name, _ in people]
    assert [int(count) for _, count in people[:4]] == sorted(int(count) for _, count in people[:4])


def test_examples_can_be_left_out(folder: Path, tmp_path: Path):
    page = write_report(folder, examples=False).read_text("utf-8")
    assert "viewer-" not in page


def test_a_protected_run_shows_nobodys_items_unless_asked_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch):
    run = read_run(folder)
    object.__setattr__(run, "result", SimpleNamespace(guarantee="epsilon 4"))
    monkeypatch.setattr(page_module, "read_run", lambda _: run)
    monkeypatch.setattr(page_module, "save_curves", lambda *_: None)
    monkeypatch.setattr(page_module, "report_page", lambda _, examples, why: f"{len(examples)} people. {why}")
    monkeypatch.setattr(page_module, "_examples", lambda *_: (["somebody"], ""))
    assert write_report(folder).read_text("utf-8") == f"0 people. {page_module.NO_EXAMPLES}"
    assert write_report(folder, examples=True).read_text("utf-8") == "1 people. "


def test_examples_give_way_to_the_reason_when_the_data_is_gone(folder: Path):
    (folder / "config.toml").write_text('data = "no-such-data"\nunit = "none"\n')
    page = write_report(folder).read_text("utf-8")
    assert "could not be read again" in page
    assert "viewer-" not in page


def test_examples_give_way_to_the_reason_when_the_data_has_changed(folder: Path):
    (folder / "config.toml").write_text('data = "demo"\nunit = "none"\n')
    page = write_report(folder).read_text("utf-8")
    assert "it has changed since the run" in page
    assert "viewer-" not in page


def test_the_same_run_gives_the_same_bytes(folder: Path, finished_run: SimpleNamespace, page: str):
    history = finished_run.finished.split.full_train
    assert write_report(folder, history=history).read_text("utf-8") == page


def test_the_report_brings_curves_as_a_picture_unless_it_is_written_elsewhere(folder: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere.html"
    assert write_report(folder, output=elsewhere, examples=False) == elsewhere
    assert not (folder / "plots").exists()
    write_report(folder, examples=False)
    assert (folder / "plots" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_output_folder_that_is_missing_is_refused_before_anything_is_written(folder: Path, tmp_path: Path):
    with pytest.raises(EnvironmentProblem, match="is not a folder"):
        write_report(folder, output=tmp_path / "no" / "page.html", examples=False)


def test_a_run_with_no_validation_no_loss_and_no_baselines_still_makes_a_page(
    make_run: Callable[..., object], tmp_path: Path
):
    make_run("bare", result={"baselines": {}, "best_round": None})
    run = read_run(tmp_path / "bare")
    quiet = tuple(record.model_copy(update={"loss": None, "validation": None}) for record in run.rounds)
    object.__setattr__(run, "rounds", quiet)
    said = Outline(report_page(run, [], "None.")).said()
    assert "Neither loss nor validation was measured" in said
    assert "For comparison" not in said


def test_an_unfinished_run_has_no_report(folder: Path):
    (folder / "result.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        write_report(folder)
    assert not (folder / "report.html").exists()
