"""Items and user groups: what is published about them reaches the right index."""

import gzip

import polars as pl
import pytest

from palate.data.catalogue import Catalogue
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.errors import DataError
from palate.simulation.datasets.presets import align_groups, read_groups


def test_movies_dat_is_read_as_grouplens_publishes_it(tmp_path):
    path = tmp_path / "movies.dat.gz"
    lines = "1::Toy Story (1995)::Animation|Children's|Comedy\n73::Misérables, Les (1995)::Drama|Musical\n"
    path.write_bytes(gzip.compress(lines.encode("latin-1")))
    items, notes = read_items(path)
    assert items.ids == ("1", "73")
    assert items.titles == ("Toy Story (1995)", "Misérables, Les (1995)")
    assert items.genres[0] == ("Animation", "Children's", "Comedy")
    assert items.years.tolist() == [1995, 1995]
    assert notes == ()


def test_u_item_flags_become_genres(tmp_path):
    path = tmp_path / "u.item"
    flags = ["0"] * 19
    flags[1] = flags[16] = "1"
    path.write_text(
        "2|GoldenEye (1995)|01-Jan-1995||http://x|" + "|".join(flags) + "\n267|unknown||||1" + "|0" * 18 + "\n"
    )
    items, _ = read_items(path)
    assert items.genres == (("Action", "Thriller"), ())
    assert items.years.tolist() == [1995, 0]


def test_csv_columns_are_found_and_what_is_absent_is_empty(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(
        'item,title,genres,description\n01,"A, B (1999)",Crime|Drama|Crime,long\n02,,,only this\n02,again,,\n'
    )
    items, _ = read_items(path)
    assert items.ids == ("01", "02")
    assert items.titles == ("A, B (1999)", "only this")
    assert items.genres == (("Crime", "Drama"), ())
    assert items.years.tolist() == [1999, 0]
    assert items.texts == ("long", "only this")


def test_release_date_gives_the_year_where_the_title_does_not(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,name,release_date\n1,X,2001-05-06\n2,Y (1950),\n3,Z,soon\n")
    assert read_items(path)[0].years.tolist() == [2001, 1950, 0]


def test_keys_that_come_twice_or_not_at_all_are_noted(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item,title\n1,A\n,B\n1,C\n2,D\n")
    items, notes = read_items(path)
    assert (items.ids, items.titles) == (("1", "2"), ("A", "D"))
    assert [note.rpartition(" (")[2] for note in notes] == ["3)", "4)"]


@pytest.mark.parametrize("genres", ["Crime|Drama", "Crime; Drama", "Drama, Crime"])
def test_genres_are_parted_as_the_column_parts_them(tmp_path, genres):
    path = tmp_path / "items.tsv"
    path.write_text(f"item\tgenres\n1\t{genres}\n2\tCrime\n")
    items, notes = read_items(path)
    assert items.genres == (("Crime", "Drama"), ("Crime",))
    assert bool(notes) == ("|" not in genres)


def test_bad_lines_of_an_items_file_are_noted_or_refused(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item,title\n1,A\n2\n3,C\n")
    items, notes = read_items(path)
    assert items.ids == ("1", "3")
    assert notes == ("items.csv: 1 lines skipped, each has a wrong number of fields (3)",)
    with pytest.raises(DataError, match="line 3"):
        read_items(path, ReadOptions(strict=True))


@pytest.mark.parametrize("content", ["title,genres\nA,B\n", "item,price\n1,2\n"])
def test_items_file_without_use_is_refused(tmp_path, content):
    path = tmp_path / "items.csv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_items(path)
    assert caught.value.hint


def test_catalogue_follows_the_ids_asked_for(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item,title,year\na,Alpha,1990\nb,Beta,1991\n")
    catalogue = Catalogue.of(["b", "unheard of", "a"], read_items(path)[0])
    assert catalogue.titles == ("Beta", "unheard of", "Alpha")
    assert catalogue.years.tolist() == [1991, 0, 1990]


def test_nothing_known_leaves_ids_as_titles():
    catalogue = Catalogue.of(["x", "y"])
    assert catalogue.titles == ("x", "y")
    assert catalogue.genres == ((), ())


def test_age_codes_and_exact_ages_fall_into_the_same_bands(tmp_path):
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::15::55117\n")
    (tmp_path / "u.user").write_text("1|17|F|student|1\n2|73|M|retired|2\n3|34|M|writer|3\n")
    for name in ("users.dat", "u.user"):
        groups = align_groups(read_groups(tmp_path / name), ["3", "1", "2", "4"])
        assert groups == {"gender": ("M", "F", "M", "unknown"), "age": ("25-34", "under 18", "56+", "unknown")}


def test_zip_codes_and_occupations_are_not_kept(tmp_path):
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    assert read_groups(tmp_path / "users.dat").columns == ["user", "gender", "age"]


def test_bands_survive_a_second_reading(tmp_path):
    pl.DataFrame({"user": ["1", "2"], "age": ["25-34", "?"]}).write_csv(tmp_path / "users.csv")
    assert read_groups(tmp_path / "users.csv")["age"].to_list() == ["25-34", "unknown"]
