"""What the owner does on the page, request by request: it is kept, it counts at once, and it can be taken back."""

from __future__ import annotations

import errno
import json
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.owner import forgetting
from palate.client.owner.device import OwnerDevice
from palate.client.owner.list_text import explanation_lines
from palate.client.page.list_controls import ListControls
from palate.client.recommending.explaining import SHOWN
from palate.client.recommending.facets import genre_facet
from palate.client.recommending.requests import Request
from palate.client.vault import Vault
from palate.client.vault.errors import NoVault
from palate.client.vault.history import History
from palate.errors import ConfigError

from .conftest import Visitor, items_of, visitor

PLACES = ("", "search", "search?q=picture+12", "profile", "history", "privacy", "about", "forget")


class Outline(HTMLParser):
    """What an assistive program reads of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.unclosed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "input"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)


@pytest.mark.parametrize("path", PLACES)
def test_pages_are_well_formed_and_labelled(owner: Visitor, path: str) -> None:
    answer = owner.get(path)
    assert answer.status_code == 200
    outline = Outline(answer.text)
    assert not outline.unclosed
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs.get("for") for tag, attrs in outline.tags if tag == "label"}
    for tag, attrs in outline.tags:
        if tag in {"input", "select"} and attrs.get("type") not in {"hidden", "checkbox"}:
            assert attrs["id"] in labelled
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in ids
    assert [tag for tag, _ in outline.tags].count("h1") == 1
    assert next(attrs["href"] for tag, attrs in outline.tags if tag == "a") == "#content"
    current = [attrs for tag, attrs in outline.tags if tag == "a" and attrs.get("aria-current") == "page"]
    assert len(current) == 1
    assert any(attrs.get("aria-live") == "polite" for _, attrs in outline.tags)
    buttons = re.findall(r"<button[^>]*>(.*?)</button>", answer.text, re.DOTALL)
    assert all(re.sub("<[^>]*>", "", words).strip() for words in buttons)


def test_titles_are_text_and_never_markup(owner: Visitor) -> None:
    for path in PLACES:
        assert "<b>" not in owner.get(path).text
    assert "&lt;b&gt;number&lt;/b&gt;" in owner.get("").text


def test_the_list_is_the_recommenders_with_its_reasons(owner: Visitor) -> None:
    with owner.session.using() as device:
        answer = device.person().recommend()
    text = unescape(owner.get("").text)
    assert items_of(text) == [line.id for line in answer.recommendations]
    for line in answer.recommendations:
        assert line.why[1:] in text
        assert line.confidence.sentence.partition(": ")[2] in text


@pytest.mark.parametrize("said", ["like", "dislike", "hide", "had"])
def test_feedback_changes_the_next_list_and_undo_brings_the_old_one_back(owner: Visitor, said: str) -> None:
    before = items_of(owner.get("").text)
    after = owner.said("feedback", said=said, item=before[0], page="", query="")
    assert before[0] not in items_of(after)
    assert 'id="undo-said"' in after
    assert 'id="undo-said"' not in owner.get("").text  # said once
    back = owner.said("undo", page="", query="")
    assert items_of(back) == before


def test_feedback_is_in_the_vault_when_the_answer_comes(owner: Visitor) -> None:
    item = items_of(owner.get("").text)[0]
    owner.post("feedback", said="dislike", item=item)
    with Vault.open(owner.session.device.folder.vault) as other:
        assert History(other).marks() == {item: "dislike"}


def test_what_another_program_does_shows_on_the_next_page(owner: Visitor) -> None:
    first = items_of(owner.get("").text)[0]
    with OwnerDevice.opened(owner.session.device.folder) as other:
        other.say("hide", first)
        other.set_facet("genre: War", "pin")
    assert first not in items_of(owner.get("").text)
    assert "pinned" in owner.get("profile").text


def test_after_feedback_the_filters_stay(owner: Visitor) -> None:
    query = "ask=crime&diversity=0.5&genre=Crime&from=1980&count=20"
    item = items_of(owner.get(f"?{query}").text)[0]
    answer = owner.post("feedback", said="hide", item=item, page="", query=query)
    assert answer.headers["location"] == f"./?{query}"


@pytest.mark.parametrize("page", ["https://evil.example", "//evil.example", "../other", "open", "\r\nx: y"])
def test_a_form_leads_back_to_pages_of_its_own_alone(owner: Visitor, page: str) -> None:
    query = "\r\nset-cookie: x=1&a=//evil"
    answer = owner.post("undo", page=page, query=query)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("./?")
    assert "set-cookie" not in answer.headers


def test_filters_do_what_they_say(owner: Visitor) -> None:
    with owner.session.using() as device:
        catalogue, rows = device.catalogue, device.catalogue.rows
    items = [rows[item] for item in items_of(owner.get("?genre=Horror&from=1980&to=1999&count=20").text)]
    assert items
    assert all("Horror" in catalogue.genres[item] and 1980 <= catalogue.years[item] <= 1999 for item in items)


def test_the_dial_never_makes_a_list_less_varied(owner: Visitor) -> None:
    with owner.session.using() as device:
        recommender = device.recommender
    features = recommender.space.rows[:, recommender.content].astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    spread = []
    for dial in ("0", "0.25", "0.5", "0.75", "1"):
        rows = [recommender.catalogue.rows[item] for item in items_of(owner.get(f"?diversity={dial}").text)]
        cosines = unit[rows] @ unit[rows].T
        spread.append(float(1 - cosines[np.triu_indices(len(rows), 1)].mean()))
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(spread))
    assert spread[-1] > spread[0]


def test_a_request_in_words_is_said_back(owner: Visitor) -> None:
    text = unescape(owner.get("?ask=crime+from+the+90s+zzyzx").text)
    assert chips_of(text) == ["Crime", "from 1990 to 1999"]
    assert "Not understood: zzyzx" in text


def test_a_part_that_was_understood_can_be_taken_out(owner: Visitor) -> None:
    wished = "ask=crime+from+the+90s"
    text = unescape(owner.get(f"?{wished}&drop=Crime").text)
    assert chips_of(text) == ["from 1990 to 1999"]
    assert items_of(text) == items_of(owner.get("?ask=from+the+90s").text)
    dropping = re.findall(r'class="chips".*?href="\./\?([^"]*)"', text, re.DOTALL)
    assert items_of(owner.get(f"?{dropping[0]}").text) == items_of(owner.get("").text)


def chips_of(text: str) -> list[str]:
    found = re.search(r'<ul class="chips".*?</ul>', text, re.DOTALL)
    return re.findall(r">([^<>]+) <span", found[0]) if found else []


@pytest.mark.parametrize(
    "query", ["diversity=2", "diversity=nan", "diversity=x", "from=x", "from=-1", "to=99999999999", "known=all",
              "count=1000", "genre=Nonsense", "count=%C2%B2", "ask=" + "x" * 600]
)  # fmt: skip
def test_what_cannot_be_asked_for_is_explained_and_the_plain_list_shown(owner: Visitor, query: str) -> None:
    answer = owner.get(f"?{query}")
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert items_of(answer.text) == items_of(owner.get("").text)


def test_a_wish_survives_its_own_query() -> None:
    from urllib.parse import parse_qsl

    wish = ListControls(
        ask="a & b=c", diversity=0.35, genres=("A", "B&C"), first_year=1980, last_year=1999, new_only=True,
        known="less", count=20,
    )  # fmt: skip
    assert ListControls.from_query(parse_qsl(wish.query)) == wish
    assert ListControls.from_query([]) == ListControls()
    assert ListControls().query == ""


def test_search_finds_misspelt_titles_and_says_what_was_said_of_them(owner: Visitor) -> None:
    text = owner.get("search?q=pictre+nmber+12").text
    item = items_of(text)[0]
    text = owner.said("feedback", said="like", item=item, page="search", query="q=pictre+nmber+12")
    assert items_of(text)[0] == item
    assert '<span class="state">liked</span>' in text
    text = owner.said("feedback", said="forget", item=item, page="search", query="q=pictre+nmber+12")
    assert '<span class="state">liked</span>' not in text


@pytest.mark.parametrize("form", [{"said": "like", "item": "no such"}, {"said": "burn", "item": "film-00001"}, {}])
def test_feedback_that_makes_no_sense_is_refused_by_name(owner: Visitor, form: dict[str, str]) -> None:
    answer = owner.post("feedback", **form)
    assert answer.status_code == 400
    assert "What helps:" in answer.text


def test_a_pin_raises_a_facet_and_a_mute_lowers_it(owner: Visitor) -> None:
    def weight() -> float:
        with owner.session.using() as device:
            portrait = device.person().portrait
        return next(one.weight for one in portrait.interests if one.facet == "genre: War")

    plain = weight()
    text = owner.said("facet", facet="genre: War", setting="pin", page="profile")
    assert '<span class="state">pinned</span>' in text
    pinned = weight()
    owner.said("facet", facet="genre: War", setting="mute", page="profile")
    muted = weight()
    owner.said("facet", facet="genre: War", setting="release", page="profile")
    assert muted < plain < pinned
    assert weight() == pytest.approx(plain)
    owner.said("undo", page="profile")
    assert weight() == pytest.approx(muted)


@pytest.mark.parametrize("form", [{"facet": "genre: No", "setting": "pin"}, {"facet": "genre: War", "setting": "x"}])
def test_unknown_facets_and_settings_are_refused(owner: Visitor, form: dict[str, str]) -> None:
    assert owner.post("facet", **form).status_code == 400


def test_history_shows_every_entry_once_over_its_pages(owner: Visitor) -> None:
    with owner.session.using() as device:
        for number in range(60):
            device.say("had", f"film-{number:05}")
        device.history.add("title:Nowhere <i>", 4.5, 1_600_000_000, "import")
        total = len(device.entries())
    texts = [owner.get(f"history?page={page}").text for page in (1, 2)]
    assert sum(len(items_of(text)) for text in texts) == total
    assert "Nowhere &lt;i&gt;" in texts[1]
    assert "not in this catalogue" in texts[1]
    for page in ("0", "-1", "x", "9999999999999999", "²", ""):
        assert owner.get(f"history?page={page}").status_code == 200


def test_an_item_outside_the_catalogue_can_be_forgotten(owner: Visitor) -> None:
    with owner.session.using() as device:
        device.history.add("title:Nowhere", 1.0, None, "import")
    assert "Nowhere" in owner.get("history").text
    text = owner.said("feedback", said="forget", item="title:Nowhere", page="history")
    assert "title:Nowhere" not in text


def test_the_terms_shown_add_up_to_the_score(owner: Visitor) -> None:
    with owner.session.using() as device:
        catalogue = device.catalogue
        request = Request(more=(genre_facet("Crime"),), diversity=0.5)
        answer = device.person().recommend(request)
    for line in answer.recommendations:
        for shown in (line.explanation.by_source(catalogue.titles, 3), line.explanation.by_column(3)):
            assert len(shown) <= SHOWN + 2
            assert sum(value for _, value in shown) == pytest.approx(round(line.score, 3), abs=1e-9)


def test_page_and_terminal_say_the_same_words_about_a_score(owner: Visitor) -> None:
    with owner.session.using() as device:
        liked = device.catalogue.ids[device.person().recommend().recommendations[0].item]
        device.say("like", liked)
        catalogue, answer = device.catalogue, device.person().recommend(Request(more=(genre_facet("Crime"),)))
    for line in answer.recommendations:
        text, found = "\n".join(explanation_lines(line.explanation, catalogue)), line.explanation
        for label, _ in (*found.by_source(catalogue.titles, 3)[:SHOWN], *found.by_column(3)[:SHOWN]):
            assert f"  {label}\n" in f"{text}\n"
        assert "what was learned from everybody" in text


def test_export_is_the_whole_truth_as_a_file(owner: Visitor) -> None:
    item = items_of(owner.get("").text)[0]
    owner.post("feedback", said="dislike", item=item)
    answer = owner.post("export")
    assert answer.headers["content-disposition"] == 'attachment; filename="palate-export.json"'
    found = json.loads(answer.content)
    assert found["vault"]["purposes"]["history"]["marks"] == {item: "dislike"}
    with owner.session.using() as device:
        keys = DeviceKeys.load(device.vault)
    assert keys.signing.private_bytes_raw().hex() not in answer.text
    assert keys.name == found["device"]


def test_forgetting_needs_the_word_and_then_leaves_nothing(owner: Visitor) -> None:
    folder: DeviceFolder = owner.session.device.folder
    for word in ("", "yes", "FORGET ME"):
        assert owner.post("forget", confirm=word).status_code == 400
    assert not owner.ended
    answer = owner.post("forget", confirm=" Forget ")
    assert answer.status_code == 200
    assert "Forgotten" in answer.text
    assert owner.ended == [True]
    with pytest.raises(NoVault):
        Vault.open(folder.vault)
    assert not folder.table.exists()
    for path in ("", "history", "profile"):
        assert owner.get(path).status_code == 409
    assert owner.post("feedback", said="like", item="film-00001").status_code == 409
    assert owner.get("privacy").status_code == 409


def test_forgetting_waits_for_the_agent_and_the_page_goes_on(owner: Visitor) -> None:
    with owner.session.device.folder.locked():
        answer = owner.post("forget", confirm="forget")
    assert answer.status_code == 409
    assert "Another program takes part" in answer.text
    assert len(items_of(owner.get("").text)) == 10


def test_forgetting_that_is_cut_off_says_how_to_go_on(owner: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: DeviceFolder = owner.session.device.folder

    def failing(_) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_shred_all", failing)
        answer = owner.post("forget", confirm="forget")
    assert answer.status_code == 409
    assert "the disk is gone" in answer.text
    for answer in (owner.get(""), owner.post("forget", confirm="forget")):
        assert answer.status_code == 409
        assert "palate client forget --yes" in answer.text
    forgetting.forget_device(folder)
    assert not folder.table.exists()


def test_where_forgetting_does_not_begin_the_page_goes_on(owner: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_, **__) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(forgetting.forget, "forget", failing)
        answer = owner.post("forget", confirm="forget")
    assert answer.status_code == 409
    assert "Permission denied" in answer.text
    assert len(items_of(owner.get("").text)) == 10


def test_a_defect_names_its_kind_and_quotes_nothing(owner: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("secret taste")

    monkeypatch.setattr(OwnerDevice, "entries", broken)
    answer = owner.get("history")
    assert answer.status_code == 500
    assert "ValueError" in answer.text
    assert "secret" not in answer.text


def test_a_device_of_no_fleet_and_no_table_says_so(folder: DeviceFolder) -> None:
    folder.table.unlink()
    with Vault.open(folder.vault) as vault:
        owner = visitor(folder, vault)
        text = owner.get("").text
        assert "No table has arrived yet" in text
        assert len(items_of(text)) == 10
        assert "belongs to no fleet" in owner.get("privacy").text
        folder.catalogue.unlink()
        answer = owner.get("")
        assert answer.status_code == 409
        assert "palate client try" in answer.text
        owner.client.close()


def test_wishes_out_of_range_cannot_be_made() -> None:
    for wrong in (
        ("diversity", "1.5"),
        ("count", "0"),
        ("from", "0"),
        ("to", "10000"),
        ("known", "no"),
        ("count", "x"),
    ):
        with pytest.raises(ConfigError, match=f"{wrong[0]} is '{wrong[1]}'"):
            ListControls.from_query([wrong])
