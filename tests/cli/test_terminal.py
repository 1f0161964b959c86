"""What a terminal shows of a table."""

from __future__ import annotations

from palate.cli.terminal import Answer, answering
from palate.simulation.report.tables import text_grid


def test_no_column_of_a_wide_table_is_lost_in_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("Round", "Outcome", "Devices", "Shares of noise", "Noise multiplier", "Cost, 2 rho", "Epsilon so far")
    row = ("17", "released", "2,000 of 2,000", "2,000", "1.306", "0.58596", "3.225")
    answering(lambda: Answer({}, [text_grid("Round by round", columns, [row])]))(as_json=False)
    printed = capsys.readouterr().out.split()
    for word in " ".join((*columns, *row)).split():
        assert word in printed
