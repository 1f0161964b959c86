"""What the controls of the recommendations page ask for, as the query of its address, and back.

A list is asked for by GET alone: it changes nothing, can be kept as a bookmark, and needs no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from palate.client.recommending.facets import genre_facet
from palate.client.recommending.recommender import COUNT, Recommender
from palate.client.recommending.requests import Request
from palate.errors import ConfigError

COUNTS = (10, 20, 50)
MAX_YEAR = 9999

Fame = Literal["any", "well", "less"]
_POPULARITY: dict[Fame, int] = {"any": 0, "well": 1, "less": -1}


class ListControls(BaseModel):
    """One setting of the controls.

    Attributes
    ----------
    ask
        A request in plain words.
    drop
        Parts of what was understood of it that are left out, by their words.
    diversity
        The dial, 0 to 1.
    genres
        Names of genres of which an item must have one.
    first_year, last_year
        Span of years; None is open.
    new_only
        Only what is new.
    known
        Well known, less known, or any.
    count
        Length of the list.

    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    ask: Annotated[str, AfterValidator(lambda text: " ".join(text.split()))] = ""
    drop: tuple[str, ...] = ()
    diversity: float = Field(0.0, ge=0, le=1)
    genres: tuple[str, ...] = Field((), alias="genre")
    first_year: int | None = Field(None, alias="from", ge=1, le=MAX_YEAR)
    last_year: int | None = Field(None, alias="to", ge=1, le=MAX_YEAR)
    new_only: bool = Field(False, alias="new")
    known: Fame = "any"
    count: int = Field(COUNT, ge=1, le=COUNTS[-1])

    @property
    def narrows(self) -> bool:
        """Whether any filter is set, so that the filters should be seen."""
        return bool(self.genres or self.new_only or self.first_year or self.last_year) or (
            (self.known, self.count) != ("any", COUNT)
        )

    @property
    def query(self) -> str:
        """The same as a query without "?"; empty for the plain list."""
        given = self.model_dump(by_alias=True, exclude_defaults=True)
        return urlencode(given | ({"new": "1"} if self.new_only else {}), doseq=True)

    @staticmethod
    def from_query(pairs: Sequence[tuple[str, str]]) -> ListControls:
        """Read the fields of a query; names that are none of them are passed over, of repeated ones the last counts.

        Raises
        ------
        ConfigError
            If a value cannot be used.
        """
        several = ("genre", "drop")
        given = {name: value for name, value in dict(pairs).items() if value.strip() and name not in several}
        lists = {each: tuple(dict.fromkeys(v for name, v in pairs if name == each and v)) for each in several}
        try:
            return ListControls.model_validate({**given, **lists})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"{first['loc'][0]} is {str(first['input'])[:40]!r}: {first['msg'][:1].lower()}{first['msg'][1:]}",
                hint="leave the field empty, or choose a value that the page offers",
            ) from None

    def request(self, recommender: Recommender) -> Request:
        """Turn it into what the recommender is asked; raises ConfigError as `RequestReader.read`."""
        controls = Request(
            genres=tuple(genre_facet(genre) for genre in self.genres),
            first_year=self.first_year,
            last_year=self.last_year,
            new_only=self.new_only,
            popularity=_POPULARITY[self.known],
            diversity=self.diversity or None,
            count=self.count if self.count != COUNT else None,
        )
        if not self.ask:
            return controls
        return recommender.reader.read(self.ask).dropped(self.drop, recommender.catalogue).also(controls)

    def dropping(self, parts: Iterable[str]) -> str:
        """Query of the same list without some parts of what was understood."""
        return self.model_copy(update={"drop": (*self.drop, *parts)}).query
