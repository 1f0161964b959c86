"""Options of reading a dataset: one frozen record for the command line, the run's config and the presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palate.errors import ConfigError

DateOrder = Literal["day", "month"]
"""What comes first in dates such as 7/6/2020."""


class ReadOptions(BaseModel):
    """Column names and cleaning rules; None means "the preset's own value, else a guess or no limit".

    Attributes
    ----------
    user_column, item_column, title_column, rating_column, time_column
        Names of the columns, or their positions where the file has no header line; guessed where None.
    columns
        Names of the columns of a file without a header line, in order, as "user,item,-,time"; "-" skips one.
    date_order
        What comes first in dates such as 7/6/2020; None lets the column decide.
    items
        File that describes the items (title, genres, year, description).
    min_user, min_item
        Fewest interactions that a user and an item must keep (k-core, iterated).
    min_rating
        Lowest rating that counts as an interaction; None keeps all, as is usual for implicit feedback.
    strict
        Refuse a file with a bad row instead of dropping the row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_column: str | None = Field(None, description="column of the users; guessed from common names")
    item_column: str | None = Field(None, description="column of the items; guessed")
    title_column: str | None = Field(None, description="column of the items' titles; guessed")
    rating_column: str | None = Field(None, description="column of the ratings; guessed")
    time_column: str | None = Field(None, description="column of times or ranks; guessed")
    columns: str | None = Field(None, description="columns of a file without a header line: user,item,-,time")
    date_order: DateOrder | None = Field(None, description="what comes first in dates such as 7/6/2020: day or month")
    items: Path | None = Field(None, description="file that describes the items")
    min_user: int | None = Field(None, ge=1, description="fewest interactions of a user that is kept")
    min_item: int | None = Field(None, ge=1, description="fewest interactions of an item that is kept")
    min_rating: float | None = Field(None, allow_inf_nan=False, description="lowest rating that counts")
    strict: bool = Field(False, description="refuse a file with a bad row")

    @classmethod
    def checked(cls, **values: Any) -> ReadOptions:
        """Build options from flags.

        Raises
        ------
        ConfigError
            If a value is out of range, in one line that names the option.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            flag = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
            raise ConfigError(
                f"{flag} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}",
                hint="palate data describe --help explains the reading options",
            ) from error

    @property
    def column_names(self) -> list[str] | None:
        """Names in `columns`; None where the file names its columns itself."""
        return None if self.columns is None else [name.strip() for name in self.columns.split(",")]

    def over(self, defaults: ReadOptions) -> ReadOptions:
        """Options in which everything that is set here wins over `defaults`."""
        given = {name: value for name, value in self if value is not None and value is not False}
        return defaults.model_copy(update=given)
