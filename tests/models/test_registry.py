"""Names find built-in parts and those of other packages; what is wrong with a package is said with its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from palate.errors import ConfigError
from palate.models.registry import Registry


class Spice:
    """A kind of part, for these tests."""

    def __init__(self, name: str) -> None:
        self.name = name


SALT = Spice("salt")


def accept(value: object) -> Spice:
    if isinstance(value, Spice):
        return value
    raise TypeError(f"{value!r}, which is no Spice")


def registry(built_in: dict[str, str] | None = None) -> Registry[Spice]:
    return Registry("spice", "palate.test_spices", built_in or {}, accept)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, source: str, **entries: str) -> None:
    """Make a package with entry points, as pip would have installed it."""
    folder = folder / package
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{package}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {package}:{attribute}" for name, attribute in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[palate.test_spices]", *lines, ""]))
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def here(monkeypatch) -> dict[str, str]:
    """A built-in part, in a module of its own."""
    monkeypatch.setitem(sys.modules, "spice_rack", SimpleNamespace(SALT=SALT))
    return {"salt": "spice_rack:SALT"}


PEPPER = "from spice_base import Spice\npepper = Spice('pepper')\n"


@pytest.fixture
def importable(monkeypatch) -> None:
    """Let the packages of these tests import `Spice`."""
    monkeypatch.setitem(sys.modules, "spice_base", SimpleNamespace(Spice=Spice))


def test_built_in_and_added_parts_are_found_by_name(tmp_path, monkeypatch, here, importable):
    install(tmp_path, monkeypatch, "pepper_mill", PEPPER, pepper="pepper")
    spices = registry(here)
    assert spices["salt"] is SALT
    assert "plugins" not in vars(spices), "a built-in name needs no search of the installed packages"
    assert spices.names == ("salt", "pepper")
    assert spices["pepper"].name == "pepper"
    assert spices["pepper"] is spices["pepper"]
    assert spices.resolve("pepper") is spices["pepper"]


def test_an_unknown_name_suggests_the_closest_one(here):
    with pytest.raises(ConfigError, match="unknown spice 'slat'") as caught:
        registry(here)["slat"]
    assert "did you mean 'salt'?" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "attribute", "complaint"),
    [
        ("import no_such_module_anywhere", "x", "ModuleNotFoundError"),
        ("x = 1 +", "x", "SyntaxError"),
        ("raise RuntimeError('boom')", "x", "RuntimeError: boom"),
        ("y = 1", "x", "AttributeError"),
        ("x = 3", "x", "TypeError: 3, which is no Spice"),
        (PEPPER, "pepper", "ValueError: its name is 'pepper'"),
    ],
)
def test_a_broken_package_is_named(tmp_path, monkeypatch, importable, source, attribute, complaint):
    sys.modules.pop("mill", None)
    install(tmp_path, monkeypatch, "mill", source, clove=attribute)
    with pytest.raises(ConfigError, match="spice 'clove' of package mill cannot be used") as caught:
        registry()["clove"]
    assert complaint in caught.value.message
    assert "mill:" in caught.value.hint
    sys.modules.pop("mill", None)


def test_a_package_may_not_take_a_built_in_name(tmp_path, monkeypatch, here, importable):
    install(tmp_path, monkeypatch, "shadow", PEPPER, salt="pepper")
    spices = registry(here)
    assert spices["salt"] is SALT
    with pytest.raises(ConfigError, match="package shadow adds a spice 'salt', which is the name of a built-in one"):
        _ = spices.names


def test_two_packages_may_not_share_a_name(tmp_path, monkeypatch, importable):
    install(tmp_path, monkeypatch, "one", PEPPER, pepper="pepper")
    install(tmp_path, monkeypatch, "two", PEPPER, pepper="pepper")
    with pytest.raises(ConfigError, match=r"packages (one and two|two and one) both add a spice 'pepper'"):
        registry()["pepper"]


def test_an_object_is_taken_instead_of_a_name(here):
    spices, mine = registry(here), Spice("mine")
    assert spices.resolve(mine) is mine
    with pytest.raises(ConfigError, match="unknown spice 'mine'"):
        spices["mine"]
    assert spices.name_of(mine) == "mine"
    assert spices["mine"] is mine
    again = Spice("mine")
    assert spices.name_of(again) == "mine"
    assert spices["mine"] is again, "a notebook cell that runs again defines it anew"
    assert spices.name_of("salt") == spices.name_of(SALT) == "salt"


def test_an_object_of_another_kind_or_without_a_fitting_name_is_refused(here):
    spices = registry(here)
    with pytest.raises(ConfigError, match="a spice was expected, got 3, which is no Spice"):
        spices.resolve(3)
    with pytest.raises(ConfigError, match="there is a spice 'salt' already"):
        spices.name_of(Spice("salt"))
    for name in ("", "a b", "../x", "x" * 33):
        with pytest.raises(ConfigError, match="the spice's name is"):
            spices.name_of(Spice(name))


def test_the_helper_itself_loads_nothing_slow():
    code = "import sys, palate.models.registry\nassert not {'importlib.metadata', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
