"""Options that say how a file is to be read: the fields of `ReadOptions`, once, for every command that reads one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from palate.data.options import ReadOptions

_FLAGS = {"strict"}


def reads(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options for some fields of `ReadOptions`, in the place of its argument `read`, which gets them.

    Parameters
    ----------
    fields
        Names of the fields, in the order in which help lists them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            read = ReadOptions.checked(**{name: given.pop(name) for name in fields})
            command(read=read, **given)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for each in signature.parameters.values():
            parameters += map(_option, fields) if each.name == "read" else [each]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _option(name: str) -> inspect.Parameter:
    field = ReadOptions.model_fields[name]
    words = str(field.description)
    help_ = f"{words[0].upper()}{words[1:]}."
    if name in _FLAGS:
        annotation: Any = Annotated[bool, typer.Option(f"--{name}", help=help_)]
    else:
        annotation = Annotated[field.annotation, typer.Option(help=help_, show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
