"""What the recommender answers: a list with reasons, as plain values for a page, a command or JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from palate.client.recommending.confidence import Confidence
from palate.client.recommending.explaining import Explanation
from palate.client.recommending.requests import Request
from palate.client.recommending.taste import Source
from palate.data.catalogue import Catalogue


@dataclass(frozen=True)
class Recommendation:
    """One line of a list.

    Attributes
    ----------
    rank
        From 1.
    item, id, title, year, genres
        The item: its row, its id in the catalogue, and what a person calls it; year is None where it is unknown.
    is_new
        Whether the table has not learned of it yet: it is here for its content.
    score
        Comparable within one list only.
    why
        The reasons in words.
    confidence, explanation
        How sure that is, and both sums of the score.
    """

    rank: int
    item: int
    id: str
    title: str
    year: int | None
    genres: tuple[str, ...]
    is_new: bool
    score: float
    why: str
    confidence: Confidence
    explanation: Explanation

    def to_dict(self, catalogue: Catalogue, *, explain: bool = False) -> dict[str, object]:
        """Plain values for JSON; `explain` adds every term of both sums, items by their keys as everywhere."""
        values: dict[str, object] = {
            "rank": self.rank,
            **catalogue.about(self.item),
            "is_new": self.is_new,
            "score": self.score,
            "why": self.why,
            "confidence": {
                "level": self.confidence.level,
                "track": asdict(self.confidence.track) if self.confidence.track else None,
                "evidence": self.confidence.evidence,
                "words": self.confidence.sentence,
            },
        }
        if explain:
            values["sources"] = [
                {"kind": source.kind, "label": source.label, **_named(source, catalogue), "value": value}
                for source, value in zip(self.explanation.sources, self.explanation.values.tolist(), strict=True)
            ]
            values["columns"] = dict(self.explanation.columns)
        return values


@dataclass(frozen=True)
class Answer:
    """A list, and how the request was understood.

    Attributes
    ----------
    recommendations
        Best first.
    request
        What was asked for.
    understood
        The request, said back.
    notes
        Notes to show with the list.
    """

    recommendations: tuple[Recommendation, ...]
    request: Request
    understood: str
    notes: tuple[str, ...]

    def to_dict(self, catalogue: Catalogue, *, explain: bool = False) -> dict[str, object]:
        """Plain values for JSON; the catalogue is the one that was recommended from."""
        return {
            "understood": self.understood,
            "parts": list(self.request.parts(catalogue)),
            "questions": self.request.questions(),
            "not_understood": list(self.request.not_understood),
            "notes": list(self.notes),
            "recommendations": [line.to_dict(catalogue, explain=explain) for line in self.recommendations],
        }


def _named(source: Source, catalogue: Catalogue) -> dict[str, str]:
    """Key and title of the item that a source is about, nothing where it is about none."""
    return {"item": catalogue.ids[source.item], "title": catalogue.titles[source.item]} if source.item >= 0 else {}
