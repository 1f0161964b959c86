"""Hostile files: what they hold is bounded before it is unpacked, and nothing in them is followed or expanded."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile

import pytest

from palate.data import files
from palate.data.files import Limits, read_bytes, read_known_files
from palate.data.options import ReadOptions
from palate.data.personal import read_personal
from palate.errors import DataError

LIMITS = Limits(max_bytes=1 << 22, max_rows=1000)


def known(name: str) -> bool:
    return name.endswith(".csv")


def zipped(contents: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", how) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


def refused(path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_known_files(path, known, LIMITS)
    assert caught.value.hint


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.csv": b"0" * (1 << 26)}))
    tracemalloc.start()
    refused(path, "more than 4,194,304 bytes")
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


def test_members_that_are_large_together_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({f"{at}.csv": os.urandom(1 << 19) for at in range(7)}))
    assert len(read_known_files(path, known, LIMITS)[0]) == 7
    path.write_bytes(zipped({f"{at}.csv": os.urandom(1 << 19) for at in range(7)} | {"x.csv": b"0" * (1 << 20)}))
    refused(path, "more than 4,194,304 bytes")


def test_a_member_that_is_compressed_beyond_all_exports_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.csv": b"0" * (1 << 21), "b.csv": b"x"}))
    refused(path, "more than 200 times as much")


def test_a_bomb_that_is_not_read_does_no_harm(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.csv": b"title\nHeat\n", "bomb.bin": b"0" * (1 << 24)}))
    found, not_read = read_known_files(path, known, LIMITS)
    assert (found, not_read) == ([("a.csv", b"title\nHeat\n")], ("bomb.bin",))


def test_an_archive_that_lies_about_a_size_is_refused(tmp_path):
    data = bytearray(zipped({"a.csv": b"0" * (1 << 16), "b.csv": b"x"}))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)  # the unpacked size in the directory
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", "cannot be read|more than")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_MEMBERS", 3)
    (tmp_path / "a.zip").write_bytes(zipped({f"{at}.csv": b"x" for at in range(4)}))
    refused(tmp_path / "a.zip", "more than 3 files")
    (tmp_path / "folder").mkdir()
    for at in range(4):
        (tmp_path / "folder" / f"{at}.csv").write_text("x")
    refused(tmp_path / "folder", "more than 3 files")


def test_an_empty_archive_is_refused_in_words(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({}))
    refused(tmp_path / "a.zip", "holds no file that is known as an export; it has nothing")


def test_a_zip_in_a_zip_is_not_opened(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"inner.zip": zipped({"a.csv": b"title\nHeat\n"}), "b.txt": b"x"}))
    refused(tmp_path / "a.zip", "holds no file that is known")


def test_names_that_point_elsewhere_write_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(zipped({"../../evil.csv": b"title\nHeat\n", "/etc/evil.csv": b"x\n"}))
    before = sorted(tmp_path.rglob("*"))
    found, _ = read_known_files(tmp_path / "in" / "a.zip", known, LIMITS)
    assert len(found) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_folders_are_not_followed(tmp_path):
    (tmp_path / "secret.csv").write_text("title\nSecret\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "folder" / "inner").symlink_to(tmp_path)
    refused(tmp_path / "folder", "holds no file that is known")


def test_an_archive_in_a_folder_of_gzip_bombs_is_bounded(tmp_path):
    import gzip

    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"0" * (1 << 26)))
    refused(tmp_path / "a.csv.gz", "more than 4,194,304 bytes")
    (tmp_path / "a.zip").write_bytes(zipped({"a.csv": gzip.compress(b"0" * (1 << 26)), "b.csv": b"x"}))
    refused(tmp_path / "a.zip", "more than 4,194,304 bytes")


def test_an_encrypted_archive_is_refused_in_words(tmp_path):
    data = bytearray(zipped({"a.csv": b"title\nHeat\n"}, zipfile.ZIP_STORED))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path / "a.zip", LIMITS)


XML = "<myanimelist><anime><series_title>{}</series_title><my_status>Completed</my_status></anime></myanimelist>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + XML.format("&b;"),
            "declares a document type",
        ),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">' + XML.format("x"), "declares a document type"),
        (XML.format("&secret;"), "is damaged"),
        (XML.format("<a>" * 60 + "</a>" * 60), "nested more than 32 deep"),
        (XML.format("x") + "<more/>", "is damaged"),
        ("<myanimelist><anime>", "is damaged"),
        ("<html><body>Sign in</body></html>", "no known export"),
    ],
)
def test_xml_is_refused_where_it_is_more_than_a_list(tmp_path, text, words):
    (tmp_path / "a.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        read_personal(tmp_path / "a.xml", ReadOptions(), LIMITS)
    assert caught.value.hint


def test_too_many_elements_of_xml_are_refused(tmp_path):
    one = "<anime><series_title>x</series_title><my_status>Completed</my_status></anime>"
    (tmp_path / "a.xml").write_text(f"<myanimelist>{one * 1001}</myanimelist>", encoding="utf-8")
    with pytest.raises(DataError, match="more than 1,000 rows"):
        read_personal(tmp_path / "a.xml", ReadOptions(), LIMITS)
