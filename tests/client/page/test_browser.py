"""The page in a real browser, with scripts and without, with a keyboard alone, wide and narrow, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from palate.client.fleet.folder import DeviceFolder
from palate.client.page.serving import DOOR

from .browser import Browser, find
from .test_serving import Served, start

PLACES = ("", "search?q=picture+12", "profile", "history", "privacy", "about", "forget", "?ask=crime&genre=Crime")

pytestmark = pytest.mark.skipif(find() is None, reason="needs Chromium on the PATH: apt-get install chromium")

CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const paper = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".away, .skip")) continue;
    const [a, b] = [lum(parse(getComputedStyle(node).color)), lum(paper(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


@pytest.fixture(scope="module")
def served(made: DeviceFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page in a process of its own, for all of this file."""
    import shutil

    home = tmp_path_factory.mktemp("browsed") / "home"
    shutil.copytree(made.home, home)
    found = start(DeviceFolder(home))
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture(scope="module")
def browser(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that came in by the file on the disk."""
    found = Browser(find(), tmp_path_factory.mktemp("profile"))
    try:
        found.look()
        found.open((served.folder.home / DOOR).as_uri())
        found.until("location.protocol === 'http:' && document.getElementById('content') && true")
        yield found
        assert found.problems == []
        assert {url.split("/")[2] for url in found.asked if url.startswith("http")} == {f"127.0.0.1:{served.port}"}
    finally:
        found.close()


def titles(browser: Browser) -> list[str]:
    return browser.script("[...document.querySelectorAll('.card h2')].map((node) => node.textContent)")


def undo(browser: Browser) -> None:
    browser.script("document.getElementById('undo-said').click()")
    browser.until("document.getElementById('said').innerText.includes('Taken back')")


def test_a_click_changes_the_list_in_place_says_so_and_keeps_the_focus(served: Served, browser: Browser) -> None:
    browser.open(served.place)
    before = titles(browser)
    browser.script("window.same = 1; const b = document.getElementById('like-2'); b.focus(); b.click()")
    browser.until("document.getElementById('said').innerText.includes('You like')")
    after = titles(browser)
    assert before[1].lstrip("2") not in " ".join(after)
    assert browser.script("window.same") == 1
    assert browser.script("document.activeElement.id") == "like-2"
    assert browser.script("location.href") == served.place
    undo(browser)
    assert titles(browser) == before


def test_the_dial_and_a_request_work_from_the_keyboard(served: Served, browser: Browser) -> None:
    browser.open(served.place)
    before = titles(browser)
    browser.script("document.getElementById('ask').focus()")
    browser.type("crime from the 90s")
    browser.key("Enter", "\r")
    browser.until("location.search.includes('ask=crime')")
    browser.until("document.querySelector('.chips')?.innerText.includes('from 1990 to 1999')")
    assert titles(browser) != before
    browser.script("document.getElementById('diversity').focus()")
    for _ in range(6):
        browser.key("ArrowRight")
    browser.until("location.search.includes('diversity=')")
    assert browser.script("document.activeElement.id") == "diversity"
    browser.script("history.back()")
    browser.until("document.readyState === 'complete' && document.getElementById('content') && true")


def test_the_tab_key_reaches_the_skip_link_the_pages_and_the_buttons(served: Served, browser: Browser) -> None:
    browser.open(served.place)
    seen = []
    for _ in range(20):
        browser.key("Tab")
        seen.append(browser.script("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = browser.script("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen
    assert seen[0] == "Skip to the content"
    assert seen[1:7] == ["For you", "Search and add", "Your taste", "History", "Privacy", "What is protected"]
    assert {"ask", "show", "diversity", "like-1", "dislike-1", "hide-1", "had-1"} <= set(seen)


def test_everything_works_without_scripts(served: Served, browser: Browser) -> None:
    browser.scripts_off()
    try:
        browser.open(served.place)
        before = titles(browser)
        browser.script("document.getElementById('hide-1').click()")
        browser.until("document.getElementById('said')?.innerText.includes('not shown any more')")
        assert titles(browser)[0] != before[0]
        browser.script("document.getElementById('undo-said').click()")
        browser.until("document.getElementById('said')?.innerText.includes('Taken back')")
        browser.until(f"document.querySelectorAll('.card h2').length === {len(before)}")  # the page comes anew
        assert titles(browser) == before
        browser.open(f"{served.place}search")
        browser.script("document.getElementById('q').value = 'pictre 12'; document.getElementById('find').click()")
        browser.until("location.search.includes('pictre') && document.querySelector('.card h3') && true")
    finally:
        browser.scripts_off(False)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_a_phone_and_their_contrast_is_enough(served: Served, browser: Browser, dark: bool) -> None:
    pictures = os.environ.get("PALATE_PICTURES")
    try:
        for width, height in ((320, 640), (400, 844), (1280, 900)):
            browser.look(width=width, height=height, dark=dark)
            for path in PLACES:
                browser.open(served.place + path)
                browser.script("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
                assert browser.script("document.documentElement.scrollWidth - innerWidth") <= 0, path
                assert browser.script(CONTRAST) == [], path
                if pictures:
                    name = f"{path.partition('?')[0] or ('asked' if path else 'home')}-{width}-{'dark' * dark}.png"
                    browser.picture(Path(pictures) / name)
        small = """[...document.querySelectorAll("button, nav ul a, select, input:not([type=hidden])")]
            .filter((node) => node.checkVisibility() && Math.min(node.getBoundingClientRect().height,
             (node.closest("label") ?? node).getBoundingClientRect().height) < 16).map((node) => node.outerHTML)"""
        assert browser.script(small) == []
    finally:
        browser.look()


def test_the_accessible_tree_names_every_control(served: Served, browser: Browser) -> None:
    for path in PLACES:
        browser.open(served.place + path)
        nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
        controls = [
            node
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in {"button", "link", "checkbox", "slider", "searchbox", "combobox", "spinbutton"}
        ]
        assert controls
        names = [node["name"]["value"].strip() for node in controls]
        assert all(names)
        buttons = [node["name"]["value"] for node in controls if node["role"]["value"] == "button"]
        assert len(buttons) == len(set(buttons)), path


def test_another_origin_can_neither_frame_nor_read_nor_post(
    served: Served, browser: Browser, tmp_path: Path, made: DeviceFolder
) -> None:
    history = served.folder
    page = tmp_path / "evil.html"
    page.write_text(
        f'<iframe id="frame" src="{served.place}"></iframe>'
        f'<form id="form" method="post" target="other" action="{served.place}feedback">'
        '<input name="said" value="hide"><input name="item" value="film-00001"></form><iframe name="other"></iframe>'
    )
    events = len(browser.events)
    browser.open(page.as_uri())
    read = f"fetch({served.place!r}, {{credentials: 'include'}}).then((r) => r.text()).catch((e) => 'nothing')"
    assert browser.script(read) == "nothing"
    assert browser.script("try { frame.contentDocument ? 'read' : 'nothing' } catch { 'nothing' }") == "nothing"
    browser.script("document.getElementById('form').submit()")
    from palate.client.vault import Vault
    from palate.client.vault.history import History

    browser.until("document.readyState === 'complete'")
    with Vault.open(history.vault) as vault:
        assert "film-00001" not in History(vault).marks()
    del browser.events[events:]  # what this page was refused is no defect of ours


def test_limits_are_changed_and_the_fleet_left_on_a_phone_in_light_and_dark(
    fleets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_KEYRING", "file")
    fleet = fleets.Fleet(tmp_path / "fleet", 2)
    for device in fleet.devices:
        device.kill()
    page, pictures = start(fleet.devices[0].folder), os.environ.get("PALATE_PICTURES")
    own = Browser(find(), tmp_path / "profile")
    try:
        own.open((page.folder.home / DOOR).as_uri())
        own.until("location.protocol === 'http:' && document.getElementById('content') && true")
        for dark in (False, True):
            own.look(width=390, height=844, dark=dark)
            for path in ("privacy#limits", "leave"):
                own.open(page.place + path)
                assert own.script("document.documentElement.scrollWidth - innerWidth") <= 0, path
                assert own.script(CONTRAST) == [], path
                nodes = own.send("Accessibility.getFullAXTree")["nodes"]
                fields = [
                    n for n in nodes if not n["ignored"] and n["role"]["value"] in {"textbox", "checkbox", "button"}
                ]
                names = [node["name"]["value"] for node in fields]
                assert len(names) == len(set(names)) > 1
                assert all(names)
                if pictures:
                    own.picture(Path(pictures) / f"{path.partition('#')[0]}-of-a-member-390-{'dark' * dark}.png")
        own.open(f"{page.place}privacy#limits")
        own.script("document.getElementById('limit-least_tau').value = '0.6667'")
        own.script("document.querySelector('form[action^=\"./limits\"]').requestSubmit()")
        own.until("document.querySelector('[role=alert]')?.innerText.includes('three decimals')")
        # In sight, though far down the page: a browser scrolls to the fragment when it has laid the page out.
        own.until(
            "(({top, bottom}) => 0 <= top && top < bottom && bottom <= innerHeight)"
            "(document.querySelector('[role=alert]').getBoundingClientRect())"
        )
        own.until("document.readyState === 'complete'")  # with its style: until then colours are the browser's own
        assert own.script(CONTRAST) == []
        if pictures:
            own.picture(Path(pictures) / "privacy-refused-390-dark.png")
        own.script("document.getElementById('limit-least_tau').value = '0.667'")
        own.script("document.querySelector('form[action^=\"./limits\"]').requestSubmit()")
        own.until("document.getElementById('said').innerText.includes('Your limits are changed')")
        assert own.script("document.getElementById('said').getBoundingClientRect().top") >= 0
        assert own.script("document.getElementById('limit-least_tau').value") == "0.667"
        own.open(f"{page.place}leave")
        own.script("document.querySelector('main form').requestSubmit()")
        assert own.script("document.querySelector('main input[type=checkbox]').validity.valueMissing")
        own.script("document.querySelector('main input[type=checkbox]').click()")
        own.script("document.querySelector('main form').requestSubmit()")
        own.until("document.getElementById('said').innerText.includes('Left fleet films')")
        assert own.script("document.querySelector('.banner').innerText").startswith("This device belongs to no fleet.")
        assert [text for text in own.problems if "status of 4" not in text] == []  # no table yet; refused
    finally:
        own.close()
        page.process.kill()
        page.process.communicate()
