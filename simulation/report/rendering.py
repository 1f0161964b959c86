"""Self-contained HTML pages: Jinja2 with autoescape, the style sheet inside, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from palate.errors import EnvironmentProblem
from palate.privacy import files

if TYPE_CHECKING:
    from palate.simulation.report.tables import Grid

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Protection:
    """The guarantee, or its absence: shown first on a page.

    Attributes
    ----------
    protected
        False shows a warning.
    title, text
        The message.
    facts
        Details of the guarantee, by name.
    """

    protected: bool
    title: str
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in sentences."""
        return f"{self.title}. {self.text}"


def render(template: str, *, folder: Path = _HERE, **values: Any) -> str:
    """Fill a template; text from data is escaped, a value that the template lacks is an error.

    Parameters
    ----------
    template
        Name of the template.
    folder
        Its folder; it may extend and import templates of this folder.
    values
        What it names.
    """
    loader = FileSystemLoader([folder, _HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def cell(title: str, grids: Sequence[Grid], *, note: str = "", protection: Protection | None = None) -> str:
    """Show a result in a notebook: a fragment with its own style, in the colours of the surrounding page.

    Parameters
    ----------
    title
        What is shown.
    grids
        Its tables.
    note
        A sentence above them.
    protection
        The guarantee; without one it is a warning.
    """
    return render("cell.html.j2", title=title, grids=grids, note=note, protection=protection)


def save(page: str, path: Path) -> None:
    """Write a page whole or not at all.

    Raises
    ------
    EnvironmentProblem
        If its folder does not exist.
    OSError
        If the folder cannot be written.
    """
    if not path.parent.is_dir():
        raise EnvironmentProblem(f"{path.parent} is not a folder", hint="make the folder first, or choose another")
    files.replace(path, page.encode("utf-8"), mode=files.SHARED)
