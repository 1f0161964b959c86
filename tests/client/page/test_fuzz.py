"""Hundreds of spoilt requests: none of them meets a defect, and none of them loses anything."""

from __future__ import annotations

import random
from urllib.parse import urlencode

import httpx
import pytest
from vaults import verified

from .conftest import ORIGIN, Visitor

ODD = (
    *("", "\x00", "%", "%zz", "%00", "'", '"><script>', "\u202e", "\U0001f600", "\ud7ff", "../", "//", "-1", "1e999"),
    *("nan", "9" * 40, "&", "=", ";", "\r\nx: y", "a" * 3000, "genre: Crime", "title:", "None", "+", "#", "?"),
)
WISHES = "?ask=crime+from+the+90s+like+picture&diversity=0.5&genre=Crime&from=1980&to=2000&known=well&count=20&new=1"
GETS = (
    "",
    WISHES,
    "search?q=picture+12",
    "profile",
    "history?page=2",
    "privacy",
    "about",
    "forget",
    "leave",
    "page.css",
)
POSTS = (
    ("feedback", {"said": "like", "item": "film-00012", "page": "", "query": "ask=crime"}),
    ("feedback", {"said": "hide", "item": "film-00044", "page": "search", "query": "q=pic"}),
    ("facet", {"facet": "genre: Crime", "setting": "pin", "page": "profile", "query": ""}),
    ("undo", {"page": "history", "query": "page=1"}),
    ("export", {"page": "privacy", "query": ""}),
    ("limits", {"epsilon": "4", "least_tau": "0.667", "shown": "8 1e-05", "page": "privacy"}),
    ("leave", {"confirm": "ye", "page": "privacy"}),
    ("forget", {"confirm": "forge", "page": "privacy", "query": ""}),
)


def spoilt(text: str, rng: random.Random) -> str:
    """One small harm: something odd put in, a part doubled, cut out or turned round."""
    start, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    part = text[start:end]
    return text[:start] + rng.choice((rng.choice(ODD), part + part, "", part[::-1], part.upper())) + text[end:]


@pytest.mark.campaign(short=500, long=20_000)
def test_spoilt_requests_meet_no_defect_and_lose_nothing(owner: Visitor, repeats: int) -> None:
    rng = random.Random(7)
    with owner.session.using() as device:
        device.history.forget_steps()  # what was there before is not theirs to undo
        before = device.history.in_order()
    place = f"/{owner.words.place}/"
    counts: dict[int, int] = {}
    for _ in range(repeats):
        headers = {**owner.cookie, "origin": ORIGIN}
        if rng.random() < 0.1:
            headers[rng.choice(("cookie", "host", "origin", "referer", "content-type", "sec-fetch-site"))] = rng.choice(
                [odd for odd in ODD if odd.isascii() and odd.isprintable()]
            )
        if rng.random() < 0.5:
            method, target, body = rng.choice(("GET", "GET", "HEAD")), place + spoilt(rng.choice(GETS), rng), b""
        else:
            method = "POST"
            path, form = rng.choice(POSTS)
            name = rng.choice(list(form))
            target, fields = place + path, {**form, "token": owner.words.form, name: spoilt(form[name], rng)}
            encoded = urlencode(fields)
            body = (spoilt(encoded, rng) if rng.random() < 0.3 else encoded).encode()
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        try:
            answer = owner.client.request(method, target, headers=headers, content=body)
        except httpx.InvalidURL:  # the client would not send it
            continue
        counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, target, body)
        assert "Traceback" not in answer.text
        assert "<script>" not in answer.text
    assert sum(counts.values()) > 0.8 * repeats
    assert counts[200] > 50
    assert counts[303] > 20
    assert counts[400] > 20
    with owner.session.using() as device:
        after = device.history.in_order()
        assert all(line in after for line in before)
        assert verified(device.vault)
    assert owner.get("").status_code == 200
