"""HTML pages without a single outside asset: Jinja2 with autoescape, the style sheet inside, no scripts at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from palate.errors import EnvironmentProblem
from palate.privacy import files

_HERE = Path(__file__).parent


def render(template: str, *, folder: Path = _HERE, **values: Any) -> str:
    """Fill a template; text from data is escaped, a value that the template lacks is an error.

    Parameters
    ----------
    template
        Name of the template.
    folder
        Where it lies; it may extend and import those of this folder.
    values
        What it names.
    """
    loader = FileSystemLoader([folder, _HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


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
