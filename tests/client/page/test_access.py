"""Whoever is not the owner gets nothing: each wall is tried with everything else right."""

from __future__ import annotations

import re

import pytest
from vaults import verified

from palate.client.page.access import COOKIE, HEADERS, MAX_BODY_BYTES, MAX_QUERY_BYTES, Secrets

from .conftest import ORIGIN, PORT, Visitor, items_of


def refused(answer) -> bool:
    return answer.status_code in {403, 404, 405, 414} and answer.content == b""


def changes(owner: Visitor) -> str:
    """What any change would change."""
    with owner.session.using() as device:
        return device._state()


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"localhost:{PORT}", ""]
)
def test_another_host_gets_nothing(owner: Visitor, host: str) -> None:
    assert owner.get("").status_code == 200
    assert refused(owner.get("", host=host))


@pytest.mark.parametrize("path", ["/", "/open?ticket=x", "//", "/favicon.ico", "/privacy", "/%2e%2e/"])
def test_without_the_place_there_is_nothing(owner: Visitor, path: str) -> None:
    assert refused(owner.client.request("GET", path, headers=owner.cookie))


def test_a_wrong_place_or_ticket_gets_nothing(owner: Visitor) -> None:
    other = Secrets.fresh()
    assert refused(owner.client.request("GET", f"/{other.place}/", headers=owner.cookie))
    assert refused(owner.client.request("GET", f"/{owner.words.place}/open?ticket={other.ticket}"))
    assert refused(owner.client.request("GET", f"/{owner.words.place}/open"))


@pytest.mark.parametrize("cookie", ["", f"{COOKIE}=", f"{COOKIE}=wrong", "other=1"])
def test_without_the_cookie_nothing_of_the_owner_shows(owner: Visitor, cookie: str) -> None:
    for path in ("", "history", "privacy", "page.css", "export"):
        answer = owner.client.request("GET", f"/{owner.words.place}/{path}", headers={"cookie": cookie})
        assert answer.status_code == 403
        assert answer.text == "Open this page by the link that the command printed.\n"


def test_the_link_is_exchanged_for_a_strict_cookie_of_this_place_alone(owner: Visitor) -> None:
    answer = owner.client.request("GET", owner.words.link(PORT))
    assert answer.status_code == 200
    set_cookie = answer.headers["set-cookie"]
    assert set_cookie.startswith(f"{COOKIE}={owner.words.cookie};")
    assert {"HttpOnly", f"Path=/{owner.words.place}/", "SameSite=strict"} <= set(set_cookie.split("; "))
    assert "Domain" not in set_cookie
    assert "Max-Age" not in set_cookie


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_or_port_cannot_even_read(owner: Visitor, site: str) -> None:
    assert owner.get("", **{"sec-fetch-site": "same-origin"}).status_code == 200
    assert refused(owner.get("", **{"sec-fetch-site": site}))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"http://127.0.0.1:{PORT + 1}"},
        {"origin": f"https://127.0.0.1:{PORT}"},
        {"origin": f"{ORIGIN}.evil.example"},
        {"origin": "", "referer": f"{ORIGIN}/"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json"},
        {"host": "evil.example"},
    ],
)
def test_a_form_from_elsewhere_changes_nothing(owner: Visitor, headers: dict[str, str]) -> None:
    before, item = changes(owner), items_of(owner.get("").text)[0]
    for path in ("feedback", "undo", "facet", "export", "forget"):
        answer = owner.post(
            path, headers, said="like", item=item, confirm="forget", facet="genre: Crime", setting="pin"
        )
        assert refused(answer), path
    assert changes(owner) == before
    assert owner.post("feedback", said="like", item=item).status_code == 303
    assert changes(owner) != before


def test_a_form_without_origin_passes_by_its_referrer_alone(owner: Visitor) -> None:
    item = items_of(owner.get("").text)[0]

    def sent(**headers: str):
        form = {"token": owner.words.form, "said": "hide", "item": item}
        where = f"/{owner.words.place}/feedback"
        return owner.client.request("POST", where, data=form, headers={**owner.cookie, **headers})

    assert refused(sent())
    assert refused(sent(referer="http://evil.example/"))
    assert sent(referer=f"{ORIGIN}/{owner.words.place}/").status_code == 303


@pytest.mark.parametrize("token", ["", "wrong", "\u00e9", "x" * 2000])
def test_a_form_without_the_token_changes_nothing(owner: Visitor, token: str) -> None:
    before, item = changes(owner), items_of(owner.get("").text)[0]
    assert refused(owner.post("feedback", token=token, said="like", item=item))
    assert changes(owner) == before


def test_sizes_are_bounded(owner: Visitor) -> None:
    assert refused(owner.post("feedback", said="like", item="x" * MAX_BODY_BYTES))
    assert refused(owner.get("?ask=" + "x" * MAX_QUERY_BYTES))
    assert refused(owner.get("?" + "&".join(f"a{number}=1" for number in range(500))))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(owner: Visitor, method: str) -> None:
    assert refused(owner.client.request(method, f"/{owner.words.place}/", headers=owner.cookie))


def test_get_changes_nothing(owner: Visitor) -> None:
    before, item = changes(owner), items_of(owner.get("").text)[0]
    for path in ("feedback", "undo", "facet", "export", "forget"):
        owner.get(
            f"{path}?token={owner.words.form}&said=like&item={item}&confirm=forget&facet=genre%3A+Crime&setting=pin"
        )
    assert changes(owner) == before
    assert verified(owner.session.device.vault)


def test_every_answer_forbids_keeping_framing_and_foreign_content(owner: Visitor) -> None:
    for path in ("", "search?q=picture", "profile", "history", "privacy", "about", "forget", "page.css", "nothing"):
        answer = owner.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, path
    policy = dict(part.split(" ", 1) for part in HEADERS["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert not re.search("unsafe|http|\\*", HEADERS["content-security-policy"])


def test_no_page_names_anything_outside_itself(owner: Visitor) -> None:
    for path in ("", "search?q=picture", "profile", "history", "privacy", "about", "forget"):
        text = owner.get(path).text
        assert not re.search(r'(?:src|href|action)="(?!\./|#|page\.|data:)', text), path
        assert not re.search(r"<script(?! src=\"page\.js\" defer></script>)|\son\w+=|\sstyle=", text), path


def test_secrets_do_not_print(owner: Visitor) -> None:
    shown = f"{owner.words!r} {owner.session!r}"
    assert not any(word in shown for word in vars(owner.words).values())
