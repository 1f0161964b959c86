"""`palate client try`: a device to look around in, in a minute."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import folder_option
from palate.cli.terminal import Answer, answering, note
from palate.client.fleet.folder import DeviceFolder
from palate.errors import ConfigError

_NEXT = (
    ("what it recommends, and why", "recommend"),
    ("in your own words", 'recommend "something lighter from the 90s, but not animation" --explain'),
    ("say what you think", 'like "{title}"'),
    ("see your taste, and change it", "profile"),
    ("more of something", "pin mystery"),
    ("take it back", "undo"),
)

_SEED = 1


@answering
def try_(
    folder: Annotated[
        Path | None, folder_option("Folder of the demonstration device.", show_default="./palate-demo")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the demonstration device anew.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Chooses whose history it gets.", show_default=str(_SEED))
    ] = None,
) -> Answer:
    """Make a demonstration device with films, a table and somebody's history, to look around in.

    The table is learned on this machine, by a short simulation of invented people under user-level privacy. This takes
    about half a minute. Your own device and its folder are not touched.
    """
    from rich.console import Console

    from palate.simulation.device_demo.making import clear_away, is_demo, make, seed_of

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
        if seed is not None and seed != (made_with := seed_of(place)):
            raise ConfigError(
                f"{place.home} is made already, with seed {made_with}, not {seed}",
                hint="make it anew with --fresh, or name a new folder with --folder",
            )
        return _next(place, None)
    before = set(place.home.iterdir()) if place.home.exists() else None
    try:
        with console.status("making a demonstration device") as status:
            made = make(place, seed=_SEED if seed is None else seed, tell=status.update)
    except BaseException:  # half a device is of no use, and would block the next attempt
        _remove(place.home, before)
        raise
    note(
        f"a demonstration device: {made.items} invented films, a table learned from {made.people:,} invented people in "
        f"a simulation, and the {made.history} films that one of them has seen. It belongs to no fleet and sends "
        f"nothing. The table was learned with epsilon {made.promise.epsilon:g}: {made.promise.words}."
    )
    return _next(place, made.newest)


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


def _next(folder: DeviceFolder, title: str | None) -> Answer:
    """Say what to type next."""
    if title is None:
        from palate.client.owner.device import OwnerDevice

        with OwnerDevice.opened(folder) as device:
            title = device.catalogue.titles[0]
    commands = [f"palate client {words.format(title=title)}" for _, words in _NEXT]
    width = max(map(len, commands))
    lines = [f"{command:<{width}}   # {why}" for command, (why, _) in zip(commands, _NEXT, strict=True)]
    home = str(folder.home)
    return Answer({"home": home, "commands": commands}, [f"export PALATE_HOME={shlex.quote(home)}", *lines])
