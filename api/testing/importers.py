"""What every importer promises, `palate.data.importers.Importer`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from palate.testing.base import Conformance

if TYPE_CHECKING:
    import polars as pl

    from palate.data.importers import Importer

_PLAIN = frozenset({"user", "item", "rating", "timestamp"})


class ImporterConformance(Conformance):
    """Checks of an importer, on a few lines of the export that it knows.

    Attributes
    ----------
    part
        The importer, or the name that it is installed under.
    file
        A name that such exports have.
    sample
        Some lines of one, with its header line if it has one; a field holds no separator.
    """

    part: ClassVar[str | Importer]
    file: ClassVar[str]
    sample: ClassVar[str]

    @property
    def importer(self) -> Importer:
        """The importer itself."""
        from palate.data.importers import IMPORTERS

        return IMPORTERS.resolve(self.part)

    def test_it_says_what_it_is(self) -> None:
        """A name, and one line of description."""
        importer = self.importer
        self.expect(importer.description.strip(), "has no description")
        self.expect("\n" not in importer.description, "the description has more than one line")

    def test_it_knows_its_export_and_no_plain_table(self) -> None:
        """It is chosen by the file's name without a header line, or by columns that other tables do not have."""
        importer = self.importer
        self.expect(importer.header or importer.needs, "neither header nor needs, so it is never chosen")
        self.expect(importer.fits(self.file, frozenset(self._columns())), f"does not know {self.file}")
        self.expect(importer.header or not importer.fits("ratings.csv", _PLAIN), "takes any ratings.csv")

    def test_it_gives_the_columns_that_the_reader_knows_row_by_row(self) -> None:
        """The result names items, has a row for each line, and nothing in it is random."""
        importer, frame = self.importer, self._frame()
        found = importer.convert(frame)
        self.expect({"item", "title", "user"} & set(found.columns), f"gives {', '.join(found.columns)} alone")
        self.expect(found.height == frame.height, f"makes {found.height} rows of {frame.height}")
        self.expect(found.equals(importer.convert(frame)), "gives another table the second time")

    def test_odd_rows_are_no_error(self) -> None:
        """Rows without values or with other values are left to the reader, which counts them."""
        import polars as pl

        importer, frame = self.importer, self._frame()
        for odd in (None, "", "?"):
            row = pl.DataFrame({name: [odd] for name in frame.columns}, schema=frame.schema)
            try:
                found = importer.convert(pl.concat([frame, row]))
            except Exception as error:
                self.expect(False, f"a row of {odd!r} ends with {type(error).__name__}: {error}")
            self.expect(found.height == frame.height + 1, f"a row of {odd!r} is lost before it is counted")

    def test_the_reader_takes_its_export(self) -> None:
        """An installed importer is found by the reader, and what it gives is read."""
        from palate.data.importers import IMPORTERS
        from palate.data.tables import read_table

        if self.importer.name not in IMPORTERS.names:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.file
            path.write_text(self.sample, encoding="utf-8")
            table = read_table(path)
        found, height = table.frame, len(table.frame) + len(table.left_out)
        expected = self.importer.convert(self._frame())
        self.expect(
            found.columns == expected.columns and height == expected.height,
            f"the reader gives {height} rows of {', '.join(found.columns)}",
        )

    def _lines(self) -> list[list[str]]:
        return [line.split(self.importer.separator or ",") for line in self.sample.splitlines() if line.strip()]

    def _columns(self) -> list[str]:
        if self.importer.records is not None or self.sample.lstrip().startswith(("[", "{")):
            return self._frame().columns
        return list(self.importer.header) or self._lines()[0]

    def _frame(self) -> pl.DataFrame:
        """Return the sample as a table of text."""
        import polars as pl

        from palate.data.files import UNLIMITED
        from palate.data.records import columns_of, json_records

        if self.importer.records is not None or self.sample.lstrip().startswith(("[", "{")):
            records = (
                self.importer.records(self.sample)
                if self.importer.records is not None
                else json_records(self.file, self.sample, UNLIMITED)
            )
            return columns_of(self.file, records, UNLIMITED, stored=len(self.sample))[0]
        lines = self._lines() if self.importer.header else self._lines()[1:]
        columns = self._columns()
        self.expect(
            lines and all(len(line) == len(columns) for line in lines),
            f"the sample's lines do not have {len(columns)} fields each",
        )
        return pl.DataFrame(lines, schema=dict.fromkeys(columns, pl.String), orient="row")
