"""The page as a Starlette application: every view is a function of the device, every change a form and a redirect.

It works without scripts. Addresses are relative throughout, for access control puts a random first part before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from palate.client.fleet import enrolling
from palate.client.fleet.limit_fields import FIELDS, as_text, changes_in, from_text
from palate.client.fleet.limits import DEFAULT_DELTA
from palate.client.fleet.profile import FleetProfile, set_paused
from palate.client.fleet.status import status_of
from palate.client.fleet.status_text import (
    ahead_words,
    carried_words,
    colluding_sentence,
    left_words,
    window_words,
)
from palate.client.fleet.trust import trust_sentence
from palate.client.owner import list_text
from palate.client.owner.device import Said
from palate.client.owner.export import export_bytes
from palate.client.owner.forgetting import OUT_OF_REACH
from palate.client.page.access import FORM_TOKEN, MAX_QUERY_BYTES, form_of
from palate.client.page.list_controls import COUNTS, MAX_YEAR, ListControls
from palate.client.page.session import DeviceSession
from palate.client.recommending.facets import in_words
from palate.client.recommending.preferences import Setting
from palate.client.recommending.recommender import COUNT
from palate.client.recommending.requests import Request as Asked
from palate.client.wishes.reader import MAX_LENGTH
from palate.errors import ConfigError, PalateError, RunError
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.errors import PrivacyError

_HERE = Path(__file__).parent
_FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}

PAGES = {
    "": "For you",
    "search": "Search and add",
    "profile": "Your taste",
    "history": "History",
    "privacy": "Privacy",
    "about": "What is protected",
}
"""Title of each page by its path."""

FOUND = 20
LINES = 50
WEIGHT_SHOWN = 2.0
"""Standard deviations at which a bar of the profile is full."""

_SAID: dict[str, str] = {
    "had": "Added {} to your history.",
    "like": "You like {}. The list has changed accordingly.",
    "dislike": "You do not like {}. The list has changed accordingly.",
    "hide": "{} is not shown any more.",
    "forget": "Everything you said about {} is forgotten.",
}
_SET = {"pin": "There will be more of {}.", "mute": "There will be less of {}.", "release": "{} is as it was."}
_NO_RESULTS = 404
_WORD = "forget"
"""What the owner types to have everything forgotten."""


@dataclass
class Page:
    """The application of one device.

    Attributes
    ----------
    session
        The device.
    token
        What every form carries for access control.
    ended
        Called once the owner has had everything forgotten.
    """

    session: DeviceSession
    token: str
    ended: Callable[[], None] = lambda: None

    def app(self) -> Starlette:
        """Make the application; it takes requests that access control let through."""
        views: dict[str, Callable[[Request], Response]] = {
            "/": self.home,
            "/search": self.search,
            "/profile": self.profile,
            "/history": self.history,
            "/privacy": self.privacy,
            "/about": self.about,
            "/leave": lambda _: self._leave_page(),
            "/forget": lambda _: self._page("privacy", "forget", word=_WORD, refused=False),
            "/{name}": self.file,
        }
        changes: dict[str, Callable[[Request], Response]] = {
            "/feedback": self.feedback,
            "/undo": self.undo,
            "/pause": self.pause,
            "/limits": self.limits,
            "/leave": self.leave,
            "/facet": self.facet,
            "/export": self.export,
            "/forget": self.forget,
        }
        return Starlette(
            routes=[Route(path, view, methods=["POST"]) for path, view in changes.items()]
            + [Route(path, view, methods=["GET"]) for path, view in views.items()],
            exception_handlers=dict.fromkeys((PalateError, HTTPException, Exception), self._failed),
        )

    def home(self, request: Request) -> Response:
        """List recommendations with their reasons."""
        problem: ConfigError | None = None
        with self.session.using() as device:
            recommender = device.recommender
            try:
                wish = ListControls.from_query(request.query_params.multi_items())
                asked = recommender.reader.read(wish.ask).dropped(wish.drop, recommender.catalogue)
                answer = device.person().recommend(wish.request(recommender))
            except ConfigError as error:
                wish, problem, asked = ListControls(), error, Asked()
                answer = device.person().recommend()
        return self._page(
            "",
            "home",
            400 if problem else 200,
            wish=wish,
            answer=answer,
            chips=tuple(asked.parts(recommender.catalogue)),
            problem=problem,
            notes=(*recommender.notes, *answer.notes),
            genres=recommender.facets.genres,
            titles=recommender.catalogue.titles,
            counts=COUNTS,
            max_year=MAX_YEAR,
            max_length=MAX_LENGTH,
            count=wish.count if answer.request.count is None else answer.request.count,
            default_count=COUNT,
        )

    def search(self, request: Request) -> Response:
        """Find titles, to add them or to say something about them."""
        text = " ".join(request.query_params.get("q", "").split())[:MAX_LENGTH]
        with self.session.using() as device:
            preferences, _ = device.preferences()
            states = {
                "liked": preferences.liked,
                "in your history": set(preferences.items.tolist()) - preferences.liked,
                "disliked": preferences.disliked,
                "hidden": preferences.hidden,
            }
            catalogue = device.catalogue
            found = [
                {**catalogue.about(each.item), "states": [word for word, rows in states.items() if each.item in rows]}
                for each in (device.titles.search(text, FOUND) if text else ())
            ]
        return self._page("search", text=text, found=found, max_length=MAX_LENGTH, num_items=catalogue.num_items)

    def profile(self, _: Request) -> Response:
        """Show the taste in words and weights."""
        with self.session.using() as device:
            portrait = device.portrait()
            known = set(device.facets.items)
            resting = {name: setting for name, setting in device.settings().items() if name not in known}
        groups = {
            "Genres": [one for one in portrait.named if one.facet.startswith("genre: ")],
            "Decades": [one for one in portrait.named if one.facet.startswith("decade: ")],
        }
        return self._page("profile", portrait=portrait, groups=groups, full=WEIGHT_SHOWN, resting=resting)

    def history(self, request: Request) -> Response:
        """Show what was said so far, newest first."""
        wanted = request.query_params.get("page", "1")
        with self.session.using() as device:
            entries = device.entries()[::-1]
            marks = device.history.marks().items()
            named = {
                kind: [(item, device.title(item)) for item, mark in marks if mark == kind]
                for kind in ("dislike", "hide")
            }
        pages = max(1, -(-len(entries) // LINES))
        page = (
            min(int(wanted), pages) if wanted.isascii() and wanted.isdigit() and len(wanted) < 8 and int(wanted) else 1
        )
        return self._page(
            "history",
            lines=entries[(page - 1) * LINES : page * LINES],
            total=len(entries),
            unknown=sum(entry.row is None for entry in entries),
            page=page,
            last_page=pages,
            marked=named,
        )

    def privacy(
        self, _: Request | None = None, typed: dict[str, str] | None = None, problem: PalateError | None = None
    ) -> Response:
        """Show the budget, and what was sent in each round; and limits that could not be taken as they were typed."""
        with self.session.using() as device:
            status = status_of(device.folder)
        trust = "" if status.profile is None else trust_sentence(status.profile)
        delta = DEFAULT_DELTA if status.budget is None else status.budget.delta
        carried = carried_words(status.carried_nano, delta, explain=True) if status.carried_nano else ""
        budget = status.budget
        renewing = (
            [window_words(budget), ahead_words(budget.promise)] if budget is not None and budget.every_seconds else []
        )
        limits = {} if status.profile is None else as_text(status.profile.limits)
        return self._page(
            "privacy",
            "privacy",
            200 if problem is None else _status_of(problem),
            status=status,
            trust=trust,
            carried=carried,
            renewing=renewing,
            colluding=colluding_sentence(status),
            fields=FIELDS,
            shown=_mark_of(limits),
            limits={**limits, **(typed or {})},
            problem=problem,
        )

    def about(self, _: Request) -> Response:
        """Say in plain words what is protected, and what is not."""
        return self._page("about", guarantee=status_of(self.session.device.folder).profile)

    def file(self, request: Request) -> Response:
        """Serve the style sheet and the script."""
        found = _own_file(request.path_params["name"])
        if found is None:
            raise HTTPException(_NO_RESULTS)
        return Response(found[0], media_type=found[1])

    def feedback(self, request: Request) -> Response:
        """Keep what was said about an item of the catalogue, or about one of which something was said before."""
        form = form_of(request.scope)
        said, item = form.get("said", ""), form.get("item", "")
        if said not in get_args(Said):
            raise ConfigError(f"feedback {said[:40]!r} is unknown", hint=f"it is one of {', '.join(get_args(Said))}")
        with self.session.using() as device:
            spoken_about = item in device.history.marks() or any(
                entry.item == item for _, entry in device.history.in_order()
            )
            if item not in device.catalogue.rows and not (said == "forget" and spoken_about):
                raise ConfigError("the catalogue does not list this item", hint="look it up on the search page")
            title = f"\N{LEFT DOUBLE QUOTATION MARK}{device.title(item)}\N{RIGHT DOUBLE QUOTATION MARK}"
            changed = device.say(cast("Said", said), item)
            self.session.notify(
                _SAID[said].format(title) if changed else "That is how it was already.", can_undo=changed
            )
        return _back(form)

    def facet(self, request: Request) -> Response:
        """Pin, mute or release a facet."""
        form = form_of(request.scope)
        facet, setting = form.get("facet", ""), form.get("setting", "")
        if setting not in _SET:
            raise ConfigError(f"the setting {setting[:40]!r} is unknown", hint=f"it is one of {', '.join(_SET)}")
        with self.session.using() as device:
            if facet not in device.settings():
                device.facets.of(facet)
            if device.set_facet(facet, None if setting == "release" else cast("Setting", setting)):
                text = _SET[setting].format(in_words(facet))
                self.session.notify(text[:1].upper() + text[1:], can_undo=True)
        return _back(form)

    def undo(self, request: Request) -> Response:
        """Take the last change back."""
        with self.session.using() as device:
            self.session.notify("Taken back." if device.undo() else "There is nothing left to take back.")
        return _back(form_of(request.scope))

    def pause(self, request: Request) -> Response:
        """Take part in no new round, or go on."""
        form = form_of(request.scope)
        with self.session.using() as device:
            set_paused(device.vault, form.get("paused", "") == "yes")
        return _back(form)

    def limits(self, request: Request) -> Response:
        """Change what the owner allows, as `palate client limits`; what cannot be taken is shown with the reason."""
        form = form_of(request.scope)
        typed = {field.name: form[field.name][:MAX_LENGTH] for field in FIELDS if field.name in form}
        with self.session.using() as device:
            before = as_text(
                FleetProfile.require(device.vault).limits
            )  # without a fleet there is no form to show again
            try:
                if form.get("shown", "") != _mark_of(before):
                    raise RunError(
                        "another program changed your limits meanwhile", hint="look at them, then change them"
                    )
                changes = changes_in(from_text({name: t for name, t in typed.items() if t.strip() != before.get(name)}))
                if changes:
                    enrolling.change_limits(device.folder, **changes)
            except (ConfigError, RunError, PrivacyError) as error:
                return self.privacy(None, typed, error)
            changed = "Your limits are changed; every round from now on is held against them."
            self.session.notify(changed if changes else "Your limits are as they were.")
        return RedirectResponse("./privacy#said", status_code=303)  # the form was far down the page

    def leave(self, request: Request) -> Response:
        """Leave the fleet, as `palate client leave`, once the owner has said so twice."""
        form = form_of(request.scope)
        if form.get("confirm", "") != "yes":
            return self._leave_page(400)
        with self.session.using() as device:
            text = left_words(enrolling.leave(device.folder))
            self.session.notify(f"{text[:1].upper()}{text[1:]}.")
        return _back(form)

    def _leave_page(self, status_code: int = 200) -> Response:
        with self.session.using() as device:
            fleet = FleetProfile.require(device.vault).welcome.fleet
        return self._page("privacy", "leave", status_code, fleet=fleet, refused=status_code != 200)

    def export(self, _: Request) -> Response:
        """Give the owner everything that the device keeps about them, as a file."""
        with self.session.using() as device:
            found = export_bytes(device.folder)
        headers = {"content-disposition": 'attachment; filename="palate-export.json"'}
        return Response(found, media_type="application/json", headers=headers)

    def forget(self, request: Request) -> Response:
        """Destroy the device for good, once the owner has typed the word; the page ends with it."""
        if form_of(request.scope).get("confirm", "").strip().lower() != _WORD:
            return self._page("privacy", "forget", 400, word=_WORD, refused=True)
        stone = self.session.forget()
        farewell = HTMLResponse(_render("farewell.html.j2", spent=stone.in_words(), out_of_reach=OUT_OF_REACH))
        self.ended()
        return farewell

    def _page(self, path: str, template: str = "", status_code: int = 200, **values: Any) -> Response:
        text = _render(
            f"{template or path}.html.j2",
            pages=PAGES,
            path=path,
            notice=self.session.take_notice(),
            token_name=FORM_TOKEN,
            token=self.token,
            **values,
        )
        return HTMLResponse(text, status_code)

    def _failed(self, _: Request, error: Exception) -> Response:
        """Say what is wrong and what to do, as the command would; of a defect its kind alone, for it may quote data."""
        match error:
            case PalateError():
                return self._page("", "problem", _status_of(error), message=error.message, hint=error.hint)
            case HTTPException():
                return self._page("", "problem", error.status_code, message="There is no such page.", hint="")
        return self._page("", "problem", 500, message=f"A defect in Palate: {type(error).__name__}.", hint="Report it.")


def _mark_of(limits: Mapping[str, str]) -> str:
    """Name limits as they were shown, for a form to say what it was about."""
    return " ".join(limits.values())


def _status_of(error: PalateError) -> int:
    return 400 if isinstance(error, ConfigError) else 409


def _back(form: dict[str, str]) -> Response:
    """Return to the page that a form was on, one of `PAGES`, with the query that it had."""
    page, query = form.get("page", ""), form.get("query", "")[:MAX_QUERY_BYTES]
    pairs = parse_qsl(query, keep_blank_values=True)
    where = page if page in PAGES else ""
    return RedirectResponse(f"./{where}" + (f"?{urlencode(pairs)}" if pairs else ""), status_code=303)


@cache
def _templates() -> Environment:
    """Return the templates, compiled when first used; a value that a template lacks is an error."""
    made = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"day": _day, "epsilon": _epsilon, "percent": _percent, "query": urlencode}
    made.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return made


def _render(template: str, **values: Any) -> str:
    """Fill a template; text is escaped."""
    return _templates().get_template(template).render(**values)


@cache
def _own_file(name: str) -> tuple[bytes, str] | None:
    """Return a file that the page loads, and its media type; None for any other name."""
    kind = _FILES.get(name)
    return None if kind is None else ((_HERE / name).read_bytes(), kind)


def _day(seconds: int | None) -> str:
    """Write a moment in UTC; a dash where nobody knows, and where no calendar has it."""
    return list_text.day(seconds, "%Y-%m-%d %H:%M") or "\N{EN DASH}"


def _epsilon(value: float) -> str:
    """Round a proven figure up, as everywhere."""
    return str(round_up(value)) if math.isfinite(value) else "not finite"


def _percent(share: float) -> str:
    """Write a share in per cent."""
    return f"{100 * share:.0f}%"
