"""Presets and paths: each name loads what it says, and everything else says what is missing."""

import numpy as np
import pytest

from palate.data.options import ReadOptions
from palate.errors import ConfigError, DataError
from palate.simulation.datasets.describe import describe
from palate.simulation.datasets.presets import PRESETS, load, locate

SIZES = {  # users, items, interactions after the preset's own cleaning
    "ml-100k": (943, 1682, 100_000),
    "ml-1m": (6040, 3706, 1_000_209),
    "msweb": (26_169, 285, 102_303),
    "movietweetings-100k": (4333, 2414, 68_055),
    "online-retail": (4074, 3145, 264_514),
    "gowalla": (29_858, 40_981, 1_027_370),
    "amazon-video": (8072, 11_830, 63_836),
}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("PALATE_DATA", raising=False)
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def make_folder(folder):
    folder.mkdir(parents=True)
    (folder / "interactions.csv").write_text("user,item,timestamp\n1,10,3\n1,11,2\n2,10,1\n2,12,5\n")
    (folder / "items.csv").write_text("item,title,genres\n10,Ten (2010),A|B\n11,Eleven,\n99,Unused,C\n")
    (folder / "users.csv").write_text("user,gender,age\n2,F,30\n1,M,?\n")
    return folder


def test_folder_brings_items_and_groups(nowhere):
    data = load(make_folder(nowhere / "shop"))
    assert data.name == "shop"
    assert data.catalogue.titles == ("Ten (2010)", "Eleven", "12")  # what nobody touched is not in the table
    assert data.demographics == {"gender": ("M", "F"), "age": ("unknown", "25-34")}
    assert data.source.endswith("interactions.csv")


def test_file_takes_its_items_from_the_option(nowhere):
    folder = make_folder(nowhere / "shop")
    data = load(folder / "interactions.csv", options=ReadOptions(items=folder / "items.csv"))
    assert data.name == "interactions"
    assert data.catalogue.titles[0] == "Ten (2010)"
    assert data.demographics == {}


def test_preset_is_found_in_palate_data_before_the_cache(nowhere, monkeypatch):
    cached = make_folder(nowhere / "cache" / "ml-100k")
    assert locate("ml-100k") == cached
    local = make_folder(nowhere / "data" / "ml-100k")
    monkeypatch.setenv("PALATE_DATA", str(nowhere / "data"))
    assert locate("ml-100k") == local
    assert load("ml-100k").name == "ml-100k"


def test_raw_movielens_folder_is_read_as_it_is_unzipped(nowhere):
    folder = nowhere / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n2::661::3::978301968\n")
    (folder / "movies.dat").write_text("1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n")
    data = load(folder)
    assert data.catalogue.titles == ("One Flew Over the Cuckoo's Nest (1975)", "661")
    assert data.time_range == (978300760.0, 978302109.0)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("ml-100k", "not on this machine", "palate data get ml-100k"),
        ("ml-10k", "no dataset, file or folder called 'ml-10k'", "did you mean ml-100k"),
        ("no/such/file.csv", "no dataset, file or folder", "palate data list"),
        ("x" * 5000, "no dataset, file or folder", "palate data list"),
        ("~nobody-of-this-name/x.csv", "no dataset, file or folder", "palate data list"),
        ("nul\0byte", "no dataset, file or folder", "palate data list"),
    ],
)
def test_what_is_not_here_says_how_to_go_on(nowhere, spec, message, hint):
    with pytest.raises(DataError, match=message) as caught:
        load(spec)
    assert hint in caught.value.hint


def test_folder_without_interactions_is_refused(nowhere):
    with pytest.raises(DataError, match=r"without interactions\.csv"):
        load(nowhere)


def test_demo_refuses_an_items_file(nowhere):
    with pytest.raises(ConfigError, match="--items"):
        load("demo", options=ReadOptions(items=nowhere / "items.csv"))


def test_every_preset_states_its_terms():
    for _, preset in PRESETS.items():
        assert preset.description
        assert preset.licence
        assert preset.redistribution
        assert preset.citation
        assert preset.how_to_get


def test_description_counts_what_was_loaded(nowhere):
    described = describe(load(make_folder(nowhere / "shop")))
    assert (described.users, described.items, described.interactions) == (2, 3, 4)
    assert described.density == pytest.approx(4 / 6)
    assert described.per_item["max"] == 2
    assert described.genres == {"A": 1, "B": 1}
    assert described.described_items == 2
    assert described.time_range == ("1970-01-01", "1970-01-01")
    assert described.protocol == "leave-one-out by time"
    assert described.licence == ""


@pytest.mark.parametrize("name", SIZES)
def test_shared_preset_has_its_documented_size(shared_data, monkeypatch, name):
    if not (shared_data / PRESETS[name].folder).is_dir():
        pytest.skip(f"{name} is not in PALATE_DATA")
    monkeypatch.setenv("PALATE_DATA", str(shared_data))
    data = load(name)
    assert (data.num_users, data.num_items, len(data.item)) == SIZES[name]
    same_user = np.diff(data.user) == 0
    assert (np.diff(data.user) >= 0).all()
    assert len(np.unique(data.user.astype(np.int64) * data.num_items + data.item)) == len(data.item)
    assert same_user.any()
    assert data.has_time is (name not in ("msweb", "gowalla"))
