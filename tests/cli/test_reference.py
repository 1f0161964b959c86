"""docs/cli.md says what the commands say."""

from __future__ import annotations

import re
from pathlib import Path

from palate.cli.errors import EXIT_CODES
from palate.cli.main import COMMANDS
from palate.cli.reference import configuration, reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pages_equal_what_make_docs_would_write():
    for name, text in (("cli.md", reference()), ("configuration.md", configuration())):
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is out of date: run make docs"


def test_every_setting_is_described():
    rows = [line for line in configuration().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert all(row.split("|")[5].strip() for row in rows)


def test_every_argument_is_described_once():
    page = reference()
    sections = re.findall(r"^(?:Positional a|A)rguments:\n((?:  .*\n)+)", page, re.MULTILINE)
    rows = [row for section in sections for row in re.findall(r"^  (?! ).+", section, re.MULTILINE)]
    assert len(rows) > 20
    assert [row for row in rows if not re.match(r"  \S+  +[A-Z]", row)] == []
    assert "Positional" not in page


def test_the_page_covers_every_command_and_exit_code():
    page = reference()
    assert all(f"\n## palate {name}\n" in page for name in COMMANDS)
    assert all(f"\n| {code} | {meaning} |\n" in page for code, meaning in EXIT_CODES.items())
