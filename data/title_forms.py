"""Forms of all titles of a catalogue at once: `title_forms` and `short_forms` of `titles.py`, as string columns.

A million titles take two seconds of CPU. A test compares the two, title by title.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from palate.data import titles as one
from palate.models.arrays import BoolArray, Int32Array

_YEAR = r"\(?\b((?:1[89]|20)\d\d)\)?\s*$"
_PARENTHESES = r"\([^()]*\)"
_TRAILING = rf"^(.*\S)\s*,\s*({one.ARTICLES})'?$"
_LEADING = rf"^(?:{one.ARTICLES}) "
_SUBTITLE = r"^(.*?)(?::| - )"
_ROMAN = rf"(?:^| )(?:{'|'.join(one.ROMAN)})(?: |$)"


@dataclass(frozen=True, eq=False)
class TitleForms:
    """Forms of all titles, the longest first.

    Attributes
    ----------
    forms
        In plain letters, [num_forms].
    owners
        Row of the title of each form, int32 [num_forms].
    whole
        Whether it is a form of the whole title, not of what stands before a colon, bool [num_forms].
    years
        Year at the end of each title, 0 where there is none, int32 [num_items].
    """

    forms: pl.Series
    owners: Int32Array
    whole: BoolArray
    years: Int32Array


def forms_of(titles: Sequence[str]) -> TitleForms:
    """Return the forms of some titles, [num_items]."""
    title = pl.col("title")
    frame = pl.DataFrame({"title": pl.Series(titles, dtype=pl.String)}).with_row_index("owner")
    frame = frame.with_columns(
        name=title.str.replace(_YEAR, "").str.strip_chars(), year=title.str.extract(_YEAR).cast(pl.Int32, strict=False)
    )
    dated = pl.col("year").is_not_null() & (pl.col("name") != "")  # a text that is nothing but a year is a title
    frame = frame.with_columns(
        name=pl.when(dated).then("name").otherwise("title"), year=pl.when(dated).then("year").otherwise(0)
    ).with_columns(name=_lower(pl.col("name")))
    bare = (pl.col("year") > 0) & ~title.str.strip_chars_end().str.ends_with(")")
    odd = title.str.contains(r"[\n\r]") | (bare & pl.col("name").str.contains(_YEAR))
    frame = frame.with_columns(bare=bare, odd=odd)
    found = pl.concat([_name_forms(pl.concat(_parts(frame.filter(~pl.col("odd"))))), _one_by_one(frame.filter("odd"))])
    lacking = np.ones(len(titles), dtype=np.bool_)
    lacking[found.filter("whole")["owner"].to_numpy()] = False
    found = pl.concat([found, _one_by_one(frame.filter(pl.Series(lacking)))])
    found = found.sort(pl.col("form").str.len_chars(), descending=True, maintain_order=True)
    return TitleForms(
        found["form"],
        found["owner"].cast(pl.Int32).to_numpy(),
        found["whole"].to_numpy(),
        frame["year"].cast(pl.Int32).to_numpy(),
    )


def _parts(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Parts of titles that have forms of their own: `owner`, `part` in small letters, and `whole`."""
    name, whole = pl.col("name"), pl.lit(value=True).alias("whole")
    outer = name.str.replace_all(_PARENTHESES, " ").str.strip_chars()
    has_inner = name.str.contains(_PARENTHESES)
    bracketed = frame.filter(has_inner).with_columns(
        outer=outer, inner=name.str.extract_all(_PARENTHESES).list.eval(pl.element().str.slice(1).str.head(-1))
    )
    simple = frame.filter(~has_inner).with_columns(outer=name.str.strip_chars())
    both = pl.concat([simple.select("owner", "outer"), bracketed.select("owner", "outer")])
    joined = pl.concat_str(_article_first(pl.col("outer")), pl.col("inner").list.join(" "), separator=" ")
    head = pl.col("outer").str.extract(_SUBTITLE)
    return [
        frame.filter("bare").select("owner", _lower(pl.col("title")).str.strip_chars().alias("part"), whole),
        both.select("owner", _unaliased(pl.col("outer")).alias("part"), whole),
        bracketed.select("owner", _unaliased(joined).alias("part"), whole),
        bracketed.explode("inner").select("owner", _unaliased(pl.col("inner")).alias("part"), whole),
        both.filter(pl.col("outer").str.contains_any([":", " - "])).select(
            "owner", head.alias("part"), pl.lit(value=False).alias("whole")
        ),
    ]


def _name_forms(parts: pl.DataFrame) -> pl.DataFrame:
    """Plain forms of parts, with their leading article and without it; empty ones are left out."""
    form = pl.col("part")
    fuller = _change(parts, form.str.contains(",", literal=True), _article_first(form).alias("part"))
    fuller = _arabic(_plain(fuller)).filter(form != "").with_columns(form.str.slice(0, one.MAX_FORM))
    barer = fuller.filter(form.str.contains(_LEADING)).with_columns(form.str.replace(_LEADING, ""))
    return pl.concat([fuller, barer.filter(form != "")]).select("owner", form.alias("form"), "whole")


def _one_by_one(frame: pl.DataFrame) -> pl.DataFrame:
    """Forms of the few titles that columns do not get right."""
    rows = [
        (owner, form, whole)
        for owner, title in frame.select("owner", "title").iter_rows()
        for forms, whole in ((one.title_forms(title), True), (one.short_forms(title), False))
        for form in forms
    ]
    return pl.DataFrame(rows, schema={"owner": pl.UInt32, "form": pl.String, "whole": pl.Boolean}, orient="row")


def _lower(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase()


def _unaliased(part: pl.Expr) -> pl.Expr:
    return part.str.strip_prefix(one.ALIAS)


def _change(parts: pl.DataFrame, where: pl.Expr, change: pl.Expr) -> pl.DataFrame:
    """Change some rows only, for `pl.when` computes the change for all of them; the order of rows changes."""
    parts = parts.with_columns(where.alias("where"))
    rest = parts.filter(~pl.col("where"))
    return pl.concat([rest, parts.filter("where").with_columns(change)]).drop("where")


def _article_first(name: pl.Expr) -> pl.Expr:
    return name.str.strip_chars().str.replace(_TRAILING, "$2 $1")


def _plain(parts: pl.DataFrame) -> pl.DataFrame:
    """As `titles.plain`, for parts in small letters."""
    part = pl.col("part")
    parts = _change(parts, part.str.contains_any(list(one.SIGNS)), part.str.replace_all(f"[{one.SIGNS}]", ""))
    folded = part.str.normalize("NFKD").str.to_lowercase().str.replace_many(one.CASE).str.normalize("NFKD")
    parts = _change(
        parts, part.str.len_bytes() != part.str.len_chars(), folded.str.replace_all(r"\p{Mn}", "").alias("part")
    )
    parts = _change(parts, part.str.contains("&", literal=True), part.str.replace_all("&", " and ", literal=True))
    return parts.with_columns(part.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars(" "))


def _arabic(forms: pl.DataFrame) -> pl.DataFrame:
    """Write the Roman numbers of plain forms in digits."""
    part = pl.col("part")
    arabic = part
    for roman, number in one.ROMAN.items():
        arabic = arabic.str.replace_all(rf"\b{roman}\b", number)
    return _change(forms, part.str.contains(_ROMAN), arabic)
