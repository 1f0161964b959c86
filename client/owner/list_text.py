"""Lists, reasons and the profile as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from palate.client.recommending.answers import Answer
from palate.client.recommending.explaining import Explanation
from palate.client.vault.history import Mark
from palate.data.catalogue import Catalogue
from palate.data.ratings import UNRATED, level_of

if TYPE_CHECKING:
    from palate.client.owner.device import Entry
    from palate.client.recommending.portrait import Portrait

_DECIMALS = 4
_FACETS = 8
_BAR = 12
_BAR_SPREADS = 2.0
"""Standard deviations of a person's scores that fill a bar."""


def item_words(title: str, year: int | None, genres: Iterable[str]) -> str:
    """Say what an item is: "Heat (1995)   Crime, Drama"."""
    dated = f"{title} ({year})" if year and f"({year})" not in title else title
    kinds = ", ".join(genres)
    return f"{dated}   {kinds}" if kinds else dated


def answer_lines(answer: Answer, catalogue: Catalogue, *, explain: bool = False) -> Iterator[str]:
    """Say a list, line by line: how the request was understood, the items, and why."""
    if replace(answer.request, count=None).asks or answer.request.not_understood:
        yield f"understood: {answer.understood}"
    yield from answer.request.questions()
    for text, item in answer.request.suggestions:
        yield f"{text!r} is not a title here; did you mean {catalogue.titles[item]!r}?"
    for note in answer.notes:
        yield f"note: {note}"
    for line in answer.recommendations:
        yield f"{line.rank:>3}  {item_words(line.title, line.year, line.genres)}{'   new' if line.is_new else ''}"
        yield f"     {line.why}"
        yield f"     {line.confidence.sentence if explain else line.confidence.level}"
        if explain:
            yield from (f"     {words}" for words in explanation_lines(line.explanation, catalogue))
    track = answer.recommendations[0].confidence.track if answer.recommendations else None
    if track is not None:
        yield track.sentence


def explanation_lines(explanation: Explanation, catalogue: Catalogue) -> Iterator[str]:
    """Say both sums of a score; as printed, the terms of either add up to the score as printed."""
    for by_what, terms in (
        ("what you said", explanation.by_source(catalogue.titles, _DECIMALS)),
        ("what it is", explanation.by_column(_DECIMALS)),
    ):
        yield f"score {explanation.score:.{_DECIMALS}f}, by {by_what}:"
        yield from (f"  {value:+.{_DECIMALS}f}  {words}" for words, value in terms)


def portrait_lines(portrait: Portrait) -> Iterator[str]:
    """Say a taste: in a sentence, then facet by facet with a bar, then in words."""
    yield portrait.sentence
    if not portrait.interests:
        yield f"from {portrait.history} items; it needs a catalogue with genres or years, or a table"
        return
    yield f"from {portrait.history} items; weights are how far a kind stands above the mean item, in your own spread"
    named = portrait.named
    kept = [one for one in named if one.setting]
    top, bottom = named[:_FACETS], named[_FACETS:][-_FACETS:]
    for one in dict.fromkeys((*top, *(each for each in kept if each not in bottom), *bottom)):
        filled = min(round(abs(one.weight) / _BAR_SPREADS * _BAR), _BAR)
        bar = ("+" if one.weight >= 0 else "-") * filled
        setting = f"   {one.setting}" if one.setting else ""
        yield f"{one.weight:+6.2f} {bar:<{_BAR}}  {one.facet:<28} {one.own:>4} of yours{setting}"
    if portrait.words:
        yield f"words that your items share: {', '.join(word for word, _ in portrait.words)}"


def day(seconds: int | None, form: str = "%Y-%m-%d") -> str:
    """Write a moment in UTC; nothing where nobody knows, and where no calendar has it."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return ""


def history_lines(entries: Sequence[Entry], marks: dict[str, Mark], titles: dict[str, str]) -> Iterator[str]:
    """Say a history, newest last, and what is disliked or hidden."""
    for entry in entries:
        how = "liked" if entry.source == "feedback" else entry.source
        rated = "" if entry.value == UNRATED else f", rated {level_of(entry.value)}"
        unknown = "" if entry.row is not None else "   not in the catalogue"
        yield f"{day(entry.time):<10}  {entry.title}   ({how}{rated}){unknown}"
    for kind, said in (("dislike", "disliked"), ("hide", "hidden")):
        for item in (item for item, mark in marks.items() if mark == kind):
            yield f"{said:<10}  {titles[item]}"
