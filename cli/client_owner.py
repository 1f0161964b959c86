"""`palate client`, for the person who owns the device: lists with reasons, feedback, the profile; all offline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.client_folder import FolderOption, device_folder
from palate.cli.options import LONGEST_LIST
from palate.cli.terminal import Answer, answering, confirm, note, say, somebody_is_there
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.client.owner.device import OwnerDevice, Said
    from palate.client.recommending.preferences import Setting
    from palate.data.catalogue import Catalogue

TitleArgument = Annotated[str, typer.Argument(help="Title or key of an item; small typos are allowed.")]
FacetArgument = Annotated[str, typer.Argument(help="A genre or a decade, such as crime or 1990s.")]


@answering
def recommend(
    text: Annotated[
        str, typer.Argument(help="A wish in plain words, e.g. 'something lighter from the 90s like Heat'.")
    ] = "",
    *,
    n: Annotated[
        int | None, typer.Option("--n", min=1, max=LONGEST_LIST, help="Length of the list; 10 unless given.")
    ] = None,
    like: Annotated[list[str] | None, typer.Option(help="A title to be like; may be repeated.")] = None,
    mood: Annotated[list[str] | None, typer.Option(help="A mood, such as lighter or tense; may be repeated.")] = None,
    genre: Annotated[list[str] | None, typer.Option(help="Only this genre; repeated, one of them.")] = None,
    year: Annotated[str | None, typer.Option(help="Years: 1995, 1990-1999, 1990- or 90s.")] = None,
    diverse: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="From 0, the best items only, to 1, as varied as possible.")
    ] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Only items that are new in the catalogue.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the parts of each score.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Recommend what you have not had, with reasons; nothing leaves the device."""
    from palate.client.owner.list_text import answer_lines
    from palate.client.owner.naming import facet_named, mood_request, year_span
    from palate.client.recommending.requests import Request

    if diverse is not None and not 0.0 <= diverse <= 1.0:  # the option's own check lets nan through
        raise ConfigError(f"--diverse is {diverse}, it must be from 0 to 1", hint="0 means the best items only")
    with _device(folder) as device:
        recommender = device.recommender
        request = recommender.reader.read(text) if text.strip() else Request()
        first, last = (None, None) if year is None else year_span(year)
        wishes = Request(
            titles=tuple(_item(device, title, ask=False) for title in like or ()),
            genres=tuple(facet_named(name, recommender.facets) for name in genre or ()),
            first_year=first,
            last_year=last,
            new_only=new_only,
            diversity=diverse,
            count=n,
        )
        for word in mood or ():
            wishes = wishes.also(mood_request(recommender, word))
        request = request.also(wishes)
        answer = device.person().recommend(request)
        unknown = device.preferences()[1]
    notes = list(recommender.notes)
    if unknown:
        notes.append(f"not in this catalogue, and kept for a later one: {unknown} of your history")
    catalogue = recommender.catalogue
    found = answer.to_dict(catalogue, explain=explain)
    suggestions = [{"said": said, "title": catalogue.titles[item]} for said, item in request.suggestions]
    lines = list(answer_lines(answer, catalogue, explain=explain))
    return Answer(
        {**found, "suggestions": suggestions, "table": recommender.table_hash or None, "table_notes": notes},
        lines if answer.recommendations else [*lines, "nothing fits; ask for less at once"],
        [f"note: {each}" for each in notes],
    )


@answering
def add(
    title: TitleArgument,
    *,
    liked: Annotated[bool, typer.Option("--liked", help="You had it and liked it.")] = False,
    disliked: Annotated[bool, typer.Option("--disliked", help="You had it and did not like it.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Add something that you had to your history."""
    if liked and disliked:
        raise ConfigError("--liked and --disliked are both given", hint="choose one")
    return _feedback(folder, "like" if liked else "dislike" if disliked else "had", title)


@answering
def like(title: TitleArgument, folder: FolderOption = None) -> Answer:
    """Say that you like something: more like it from now on."""
    return _feedback(folder, "like", title)


@answering
def dislike(title: TitleArgument, folder: FolderOption = None) -> Answer:
    """Say that you dislike something: it and similar items are recommended less."""
    return _feedback(folder, "dislike", title)


@answering
def hide(title: TitleArgument, folder: FolderOption = None) -> Answer:
    """Hide something: it is not shown again, and nothing is learned from that."""
    return _feedback(folder, "hide", title)


@answering
def remove(title: TitleArgument, folder: FolderOption = None) -> Answer:
    """Remove something from your history, with all your feedback about it."""
    return _feedback(folder, "forget", title)


@answering
def undo(
    count: Annotated[int, typer.Argument(min=1, help="How many steps to undo.")] = 1,
    folder: FolderOption = None,
) -> Answer:
    """Undo your last steps: feedback, a pin, a whole import."""
    with _device(folder) as device:
        done = device.undo(count)
    words = f"took back {done} {'step' if done == 1 else 'steps'}" if done else "there is nothing to take back"
    return Answer({"undone": done}, [words])


@answering
def history(
    n: Annotated[int, typer.Option("--n", min=0, help="How many of the newest; 0 for all.")] = 20,
    folder: FolderOption = None,
) -> Answer:
    """Show your history, newest last, and what you dislike or hide."""
    from dataclasses import asdict

    from palate.client.owner.list_text import history_lines

    with _device(folder) as device:
        entries, marks = device.entries(), device.history.marks()
        titles = {key: device.title(key) for key in marks}
    shown = entries[-n:] if n else entries
    lines = [f"the newest {len(shown)} of {len(entries)}:"] if len(shown) < len(entries) else []
    lines += history_lines(shown, marks, titles)
    if not entries and not marks:
        lines.append("nothing yet; add something with palate client add TITLE, or import a file")
    values = {"interactions": len(entries), "entries": [asdict(entry) for entry in shown], "marks": marks}
    return Answer(values, lines)


@answering
def search(
    text: Annotated[str, typer.Argument(help="A title, or a part of one.")],
    n: Annotated[int, typer.Option("--n", min=1, max=LONGEST_LIST, help="How many to show.")] = 10,
    folder: FolderOption = None,
) -> Answer:
    """Look for titles in the catalogue."""
    from palate.client.owner.list_text import item_words

    with _device(folder) as device:
        catalogue = device.catalogue
        matches = device.titles.search(text, n)
    facts = [{**catalogue.about(found.item), "similarity": round(found.similarity, 4)} for found in matches]
    lines = [item_words(each["title"], each["year"], each["genres"]) for each in facts]
    return Answer({"matches": facts}, lines or [_no_match(catalogue)])


@answering
def profile(folder: FolderOption = None) -> Answer:
    """Show your taste in words and weights, as this device sees it."""
    from dataclasses import asdict

    from palate.client.owner.list_text import portrait_lines

    with _device(folder) as device:
        portrait = device.portrait()
    interests = [asdict(one) for one in portrait.interests]
    words = [{"word": word, "weight": weight} for word, weight in portrait.words]
    values = {"sentence": portrait.sentence, "history": portrait.history, "interests": interests, "words": words}
    return Answer(values, portrait_lines(portrait))


@answering
def pin(facet: FacetArgument, folder: FolderOption = None) -> Answer:
    """Ask for more of a genre or a decade, whatever your history says."""
    return _set_facet(folder, facet, "pin")


@answering
def mute(facet: FacetArgument, folder: FolderOption = None) -> Answer:
    """Ask for less of a genre or a decade, whatever your history says."""
    return _set_facet(folder, facet, "mute")


@answering
def unpin(facet: FacetArgument, folder: FolderOption = None) -> Answer:
    """Let your history decide about a genre or a decade again."""
    return _set_facet(folder, facet, None)


@answering
def export(
    file: Annotated[Path, typer.Argument(help="A new file; keep it private.")],
    folder: FolderOption = None,
) -> Answer:
    """Write everything that the device keeps about you into a file, in clear: data, ledger, public keys."""
    from palate.client.owner.export import export_to

    size = export_to(device_folder(folder), file)
    warning = "it is not sealed: whoever reads the file reads your history"
    return Answer({"file": str(file), "bytes": size}, [f"wrote {file}, {size} bytes"], [warning])


@answering
def forget(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Destroy everything that this device keeps, except how much privacy was spent."""
    from palate.client.owner.forgetting import OUT_OF_REACH, forget_device

    place = device_folder(folder)
    if not yes:
        confirm(
            "Forget everything?",
            nobody="there is nobody to confirm",
            hint="palate client forget --yes",
            before=f"history, profile, keys and ledger in {place.home} will be gone for good",
        )
    stone = forget_device(place)
    spent = [{"unit": u, "adjacency": a, "spent_nano": nano} for (u, a), nano in sorted(stone.spent.items())]
    values = {"forgotten": stone.vault.hex(), "spent": spent, "out_of_reach": OUT_OF_REACH}
    words = f"forgotten; what stays is that {stone.in_words()} of privacy was spent"
    return Answer(values, [words], [f"out of reach: {OUT_OF_REACH}"])


@answering
def budget(
    epsilon: Annotated[float | None, typer.Option(help="Change the whole budget of this device.")] = None,
    delta: Annotated[float | None, typer.Option(help="Change the delta of the budget.")] = None,
    folder: FolderOption = None,
) -> Answer:
    """Show how much of the privacy budget is spent, or change the budget."""
    from palate.client.fleet import enrolling
    from palate.client.fleet.status import status_of
    from palate.client.fleet.status_text import budget_lines

    place = device_folder(folder)
    changes = {name: value for name, value in (("epsilon", epsilon), ("delta", delta)) if value is not None}
    if changes:
        enrolling.change_limits(place, **changes)
    status = status_of(place)
    if status.budget is None:
        raise ConfigError(
            "this device belongs to no fleet, so it has no budget yet", hint="palate client enrol --request FILE"
        )
    return Answer(status.budget.to_json(), budget_lines(status.budget))


def page(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link only.")] = False,
    folder: FolderOption = None,
) -> None:
    """Show recommendations, the profile and what was sent on a local page, until Ctrl-C."""
    from palate.client.page.serving import serve

    def tell(link: str) -> None:
        say(link)
        note("only this link opens the page, and only on this machine; Ctrl-C ends it")

    serve(device_folder(folder), port=port, browser=not no_browser, tell=tell)
    note("the page has ended")


def _feedback(folder: Path | None, said: Said, title: str) -> Answer:
    from palate.client.owner.device import titled_key

    with _device(folder) as device:
        catalogue = device.catalogue
        listed = catalogue.num_items > 0  # before there is a catalogue, a title is kept as it is typed
        key = device.unlisted(title) if said == "forget" or not listed else None
        if key is None and not listed:
            key = titled_key(title)
        name = title
        if key is None:
            item = _item(device, title)
            key, name = catalogue.ids[item], catalogue.titles[item]
        changed = device.say(said, key)
        disliked = device.history.marks().get(key) == "dislike"
    words = {
        "had": "added to your history",
        "like": "liked",
        "dislike": "disliked",
        "hide": "hidden",
        "forget": "taken out of your history",
    }
    already = {"forget": "is not in your history"}.get(said, f"is {words[said]} already")
    if said == "hide" and disliked:
        already = "is disliked already, so it is not shown"
    text = f"{name}: {words[said]}; palate client undo takes it back" if changed else f"{name} {already}"
    return Answer({"said": said, "item": key, "title": name, "changed": changed}, [text])


def _no_match(catalogue: Catalogue) -> str:
    if catalogue.num_items:
        return "no title matches"
    return "there is no catalogue yet: palate client add TITLE keeps a title until one comes"


def _set_facet(folder: Path | None, facet: str, setting: Setting | None) -> Answer:
    from palate.client.owner.naming import facet_named

    with _device(folder) as device:
        name = facet_named(facet, device.facets, device.settings())
        changed = device.set_facet(name, setting)
    words = {"pin": "pinned", "mute": "muted", None: "neither pinned nor muted"}[setting]
    text = f"{name} is {words}" if changed else f"{name} is {words} already"
    return Answer({"facet": name, "setting": setting, "changed": changed}, [text])


def _item(device: OwnerDevice, text: str, *, ask: bool = True) -> int:
    """Find an item; where a title is unclear, the person at the terminal chooses."""
    from palate.client.owner.list_text import item_words
    from palate.client.owner.naming import UnclearTitle, item_named

    try:
        return item_named(device.catalogue, device.titles, text)
    except UnclearTitle as unclear:
        if not unclear.items or not ask or not somebody_is_there():
            raise
        note(unclear.message)
        for number, item in enumerate(unclear.items, start=1):
            about = device.catalogue.about(item)
            note(f"{number:>3}  {item_words(about['title'], about['year'], about['genres'])}")
        chosen = typer.prompt("Which one (0 for none)", type=int, err=True)
        if not 1 <= chosen <= len(unclear.items):
            raise ConfigError("you chose none; nothing was changed", hint="palate client search TEXT") from None
        return unclear.items[chosen - 1]


@contextmanager
def _device(folder: Path | None) -> Iterator[OwnerDevice]:
    from palate.client.owner.device import OwnerDevice
    from palate.client.vault.errors import NoVault

    place = device_folder(folder)
    if not place.vault.exists():
        raise NoVault(
            f"{place.home} has no device", hint="make yours with palate client init, or look around: palate client try"
        )
    with OwnerDevice.opened(place) as device:
        yield device
