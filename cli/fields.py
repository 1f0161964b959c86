"""Options made from the fields of a model, so that no option is written twice: name, type, bounds, default and help."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic.fields import FieldInfo

from palate.data.options import ReadOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_HUGE = 1e9  # a bound that nobody meets is not shown


def reads(*fields: str) -> Callable[[_Command], _Command]:
    """Give a command options for some fields of `ReadOptions`, in the place of its argument `read`, which gets them."""
    return replacing("read", [option(name, ReadOptions.model_fields[name]) for name in fields], _read_options)


def _read_options(values: Mapping[str, Any]) -> ReadOptions:
    return ReadOptions.checked(**{name: value for name, value in values.items() if value is not None})


def replacing(
    parameter: str, options: Sequence[inspect.Parameter], make: Callable[[dict[str, Any]], object]
) -> Callable[[_Command], _Command]:
    """Put options in the place of a command's parameter.

    Parameters
    ----------
    parameter
        Name of the parameter.
    options
        What stands in its place for Typer, in the order of the help; see `keyword`.
    make
        Makes the argument out of the options' values.
    """

    def decorate(command: _Command) -> _Command:
        signature = inspect.signature(command, eval_str=True)
        every = [new for own in signature.parameters.values() for new in (options if own.name == parameter else [own])]

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            value = make({each.name: given.pop(each.name) for each in options})
            return command(**{parameter: value}, **given)

        annotations = {each.name: each.annotation for each in every}
        vars(run).update(__signature__=signature.replace(parameters=every), __annotations__=annotations)
        return run  # type: ignore[return-value]  # what Typer calls has the new signature

    return decorate


def option(
    name: str, field: FieldInfo, *, spelling: str = "", default: str = "", panel: str | None = None
) -> inspect.Parameter:
    """Return the option of a setting; its value is None where it is not given.

    Parameters
    ----------
    name
        Of the parameter.
    field
        Has type, bounds and description.
    spelling
        Of the option; made from the name unless given.
    default
        What to say of the default.
    panel
        Heading in the help.
    """
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind in (int, float, Path, bool)]
    kind = kinds[0] if kinds else str
    words = str(field.description)
    notes = ([f"default: {default}"] if default else []) + _bounds(field)
    help_ = f"{words[0].upper()}{words[1:]}." + (f"  [{'; '.join(notes)}]" if notes else "")
    spelling = spelling or f"--{name.replace('_', '-')}"
    return keyword(name, kind | None, typer.Option(spelling, help=help_, rich_help_panel=panel, show_default=False))


def keyword(name: str, kind: Any, option: Any) -> inspect.Parameter:
    """Return a keyword parameter that is None unless its option is given."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _bounds(field: FieldInfo) -> list[str]:
    """Return the bounds of a number as `1<=x<=4096`, as Click writes them; those that nobody meets are left out."""
    found = {sign: getattr(each, key) for each in field.metadata for key, sign in _SIGNS.items() if hasattr(each, key)}
    low, high = (
        next(((sign, f"{found[sign]:g}") for sign in signs if abs(found.get(sign, math.inf)) < _HUGE), None)
        for signs in ((">", ">="), ("<", "<="))
    )
    if low and high:
        return [f"{low[1]}{low[0].replace('>', '<')}x{''.join(high)}"]
    return [f"x{''.join(low or high or ())}"] if low or high else []
