"""`palate.Table`: the item table of a run, the only thing that devices learn together."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from palate.errors import DataError
from palate.models.arrays import Float32Array
from palate.models.table import ItemTable
from palate.simulation.report.ranked import read_items
from palate.simulation.report.rendering import cell
from palate.simulation.report.tables import facts_grid
from palate.simulation.run_reader import locate_run, read_item_table

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, eq=False)
class Table:
    """Item ids and titles with the rows [popularity | public content | learned embedding].

    Attributes
    ----------
    folder
        The run that it was read from.
    items, titles
        Ids and titles, text [num_items].
    columns
        Names of the fixed columns: popularity and public content.
    rows
        The two blocks of numbers; public, as the server sends them to every device.

    Examples
    --------
    >>> table = palate.Table.open("runs/demo")
    >>> table.embeddings.shape
    >>> table.neighbours(table.titles[0])
    """

    folder: Path
    items: tuple[str, ...] = field(repr=False)
    titles: tuple[str, ...] = field(repr=False)
    columns: tuple[str, ...] = field(repr=False)
    rows: ItemTable = field(repr=False)

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Table:
        """Read the item table of a run, by its folder or its name under runs/.

        Raises
        ------
        palate.errors.RunError
            If there is none, or it is damaged.
        """
        found = locate_run(folder if isinstance(folder, str) else Path(folder))
        saved, catalogue = read_item_table(found), read_items(found)
        return cls(found, catalogue.ids, catalogue.titles, saved.columns, saved.table)

    def __len__(self) -> int:
        """Count the items."""
        return self.rows.num_items

    @property
    def embeddings(self) -> Float32Array:
        """Learned item embeddings, float32 [num_items, dim]."""
        return self.rows.learned

    @property
    def fixed(self) -> Float32Array:
        """Popularity and public content, float32 [num_items, len(columns)]."""
        return self.rows.fixed

    def to_frame(self) -> pl.DataFrame:
        """Return one row for each item: item, title, the fixed columns by name, and `embedding` as a list."""
        fixed = {name: self.fixed[:, at] for at, name in enumerate(self.columns)}
        return pl.DataFrame({"item": self.items, "title": self.titles, **fixed, "embedding": self.embeddings})

    def neighbours(self, title: str, n: int = 10) -> pl.DataFrame:
        """Return the items whose rows point in the most similar direction: item, title and cosine, best first.

        Popularity is left out: it would make all popular items alike.

        Parameters
        ----------
        title
            Title or id of an item; case is ignored.
        n
            How many.

        Raises
        ------
        palate.errors.DataError
            If there is no such item.
        """
        at = self._find(title)
        kept = np.array([name != "popularity" for name in self.columns])
        rows = np.concatenate([self.fixed[:, kept], self.embeddings], axis=1)  # [num_items, content + dim]
        norms = np.linalg.norm(rows, axis=1)
        cosine = rows @ rows[at] / np.maximum(norms * norms[at], np.finfo(np.float32).tiny)  # [num_items]
        order = [int(item) for item in np.argsort(-cosine, kind="stable") if item != at][:n]
        return pl.DataFrame(
            {
                "item": [self.items[item] for item in order],
                "title": [self.titles[item] for item in order],
                "cosine": cosine[order],
            }
        )

    def _find(self, title: str) -> int:
        wanted = title.casefold()
        for names in (self.titles, self.items):
            for at, name in enumerate(names):
                if name.casefold() == wanted:
                    return at
        near = difflib.get_close_matches(title, self.titles, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "Table.titles lists them"
        raise DataError(f"no item is called {title!r}", hint=hint)

    def _repr_html_(self) -> str:
        """Show the table's size in a notebook."""
        facts = {
            "items": f"{len(self):,}",
            "learned columns": f"{self.rows.dim}",
            "fixed columns": f"{self.rows.fixed_dim}: {', '.join(self.columns[:6])}"
            + (" and so on" if len(self.columns) > 6 else ""),
            "SHA-256": self.rows.content_hash,
        }
        return cell(f"Item table: {self.folder.name}", [facts_grid("", "", facts)])
