"""Templates of the page: Jinja2 with autoescape, and a value that a template lacks is an error."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.client.owner import list_text
from palate.privacy.accounting.guarantee import round_up

_HERE = Path(__file__).parent
_FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}


@cache
def environment() -> Environment:
    """Return the templates, compiled when first used."""
    made = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"day": day, "epsilon": epsilon, "percent": percent, "query": urlencode}
    made.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return made


def render(template: str, **values: Any) -> str:
    """Fill a template; text is escaped."""
    return environment().get_template(template).render(**values)


@cache
def own_file(name: str) -> tuple[bytes, str] | None:
    """Return a file that the page loads, and its media type; None for any other name."""
    kind = _FILES.get(name)
    return None if kind is None else ((_HERE / name).read_bytes(), kind)


def day(seconds: int | None) -> str:
    """Write a moment in UTC; a dash where nobody knows, and where no calendar has it."""
    return list_text.day(seconds, "%Y-%m-%d %H:%M") or "\N{EN DASH}"


def epsilon(value: float) -> str:
    """Round a proven figure up, as everywhere."""
    return str(round_up(value)) if math.isfinite(value) else "not finite"


def percent(share: float) -> str:
    """Write a share in per cent."""
    return f"{100 * share:.0f}%"
