"""`palate client try`: a device to look around in, in a minute."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.options import ExplainOption, folder_option
from palate.cli.terminal import Answer, answering, note
from palate.client.fleet.folder import DeviceFolder
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.simulation.device_demo.making import Made, Source

_NEXT = (
    ("what it recommends, and why", "recommend"),
    ("in your own words", 'recommend "something lighter from the 90s, but not animation" --explain'),
    ("say what you think", 'like "{title}"'),
    ("see your taste, and change it", "profile"),
    ("more of something", "pin mystery"),
    ("take it back", "undo"),
)

_OWN = ("your own history", "import letterboxd.zip")
"""The first step with a device of real items."""
_SEED = 1


@answering
def try_(
    folder: Annotated[
        Path | None, folder_option("Folder of the demonstration device.", show_default="./palate-demo")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the demonstration device anew.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Real items, not invented films: a dataset such as ml-100k, or a file.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Take table and items of a finished run.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="With --data or --from: begin with the history of this person in the data.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to the terms of the data's owner without being asked.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Chooses whose invented history it gets.", show_default=str(_SEED))
    ] = None,
    explain: ExplainOption = False,
) -> Answer:
    """Make a demonstration device, to look around in or to bring your own history to.

    Unless told otherwise its films and their audience are invented, and it gets the history of one of these people.
    With --data or --from its items are real and its history is empty: import your own. The table is learned on this
    machine, by a short simulation under user-level privacy, in about half a minute. Your own device and its folder are
    not touched.
    """
    from rich.console import Console

    from palate.simulation.device_demo.making import clear_away, is_demo, make

    source = _source(data, from_, user, seed, yes=yes)
    place = DeviceFolder((folder or Path("palate-demo")).absolute())
    there = place.home.exists() and any(place.home.iterdir())
    if there and fresh and is_demo(place):
        clear_away(place)
        there = False
    console = Console(stderr=True)
    if there:
        if not is_demo(place):
            raise ConfigError(
                f"{place.home} is not empty and is not a demonstration device", hint="name a new folder with --folder"
            )
        asked = {"data": data, "run": from_ and str(source.run), "user": user, "seed": seed}
        _require_same(place, {name: value for name, value in asked.items() if value is not None})
        return _next(place, None, [])
    before = set(place.home.iterdir()) if place.home.exists() else None
    try:
        with console.status("making a demonstration device") as status:
            made = make(place, source, status.update)
    except BaseException:  # half a device is of no use, and would block the next attempt
        _remove(place.home, before)
        raise
    note(_words(made))
    if explain:
        note(made.explained)
    return _next(place, made.example, [] if made.history else [_OWN])


def _source(data: str | None, run: str | None, user: str | None, seed: int | None, *, yes: bool) -> Source:
    """Read where the device comes from; a dataset that is not here is fetched, if its terms are agreed to."""
    from palate.simulation.device_demo.making import INVENTED, Source
    from palate.simulation.run_folder import RESOLVED, located, read_config
    from palate.simulation.run_reader import locate_run

    if data is not None and run is not None:
        raise ConfigError("--data and --from are both given", hint="choose one")
    if user is not None and data is None and run is None:
        raise ConfigError("--user needs --data or --from", hint="the invented people have no names: try --seed 2")
    chosen = _SEED if seed is None else seed
    if run is not None:
        folder = locate_run(run).absolute()
        return Source(
            data=located(folder, read_config(folder, RESOLVED)).data, run=folder, user=user or "", seed=chosen
        )
    if data is not None and data != INVENTED:
        from palate.simulation.datasets.presets import PRESETS, locate

        if data in PRESETS and PRESETS[data].fetchable and locate(data) is None:
            from palate.cli.data import fetch_with_consent

            fetch_with_consent(data, yes=yes, hint=f"palate client try --data {data} --yes")
    return Source(data=data or INVENTED, user=user or "", seed=chosen)


def _require_same(place: DeviceFolder, asked: dict[str, str | int]) -> None:
    """Refuse to answer with a device that was made with something else than is asked for."""
    from palate.simulation.device_demo.making import made_with

    made = made_with(place)
    for name, value in asked.items():
        if made.get(name) != value:
            raise ConfigError(
                f"{place.home} is made already, with {name} {made.get(name)}, not {value}",
                hint="make it anew with --fresh, or name a new folder with --folder",
            )


def _words(made: Made) -> str:
    """Say what a new device is, and what is invented."""
    from palate.simulation.device_demo.making import INVENTED

    source, invented = made.source, "invented " if made.source.data == INVENTED else ""
    how = f"by the run {source.run.name}" if source.run is not None else "in a simulation"
    whose = {"": "invented person" if invented else ""}.get(source.user, f"person {source.user} of this data")
    history = (
        f"the history of one {whose}, {made.history} items long" if made.history else "an empty history, for yours"
    )
    kind = "invented films" if invented else f"items of {source.data}"
    return (
        f"a demonstration device: {made.items:,} {kind}, a table learned {how} from {made.people:,} {invented}people, "
        f"and {history}. It belongs to no fleet and sends nothing. What protects these people: {made.protection}."
    )


def _remove(home: Path, before: set[Path] | None) -> None:
    """Remove what was made in a folder, and the folder if it was not there before."""
    if before is None:
        shutil.rmtree(home, ignore_errors=True)
        return
    for path in set(home.iterdir()) - before:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _next(folder: DeviceFolder, title: str | None, first: list[tuple[str, str]]) -> Answer:
    """Say what to type next."""
    if title is None:
        from palate.client.owner.device import OwnerDevice

        with OwnerDevice.opened(folder) as device:
            title = device.catalogue.titles[0]
    steps = [*first, *_NEXT]
    commands = [f"palate client {words.format(title=title)}" for _, words in steps]
    width = max(map(len, commands))
    lines = [f"{command:<{width}}   # {why}" for command, (why, _) in zip(commands, steps, strict=True)]
    home = str(folder.home)
    return Answer({"home": home, "commands": commands}, [f"export PALATE_HOME={shlex.quote(home)}", *lines])
