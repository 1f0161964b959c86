"""docs/cli.md says what the commands say."""

from __future__ import annotations

from pathlib import Path

from palate.cli.errors import EXIT_CODES
from palate.cli.main import COMMANDS
from palate.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_equals_what_make_docs_would_write():
    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/cli.md is out of date: run make docs"


def test_the_page_covers_every_command_and_exit_code():
    page = reference()
    assert all(f"\n## palate {name}\n" in page for name in COMMANDS)
    assert all(f"\n| {code} | {meaning} |\n" in page for code, meaning in EXIT_CODES.items())
