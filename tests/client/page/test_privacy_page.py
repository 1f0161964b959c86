"""The Privacy page of a device that took part in rounds: every byte that left, and every figure of the ledger."""

from __future__ import annotations

from hashlib import sha256
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

from palate.client.fleet.profile import PAUSED
from palate.client.fleet.status import status_of
from palate.client.vault import Vault
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.wire import FleetStep

from .conftest import visitor


def test_it_shows_exactly_what_was_sent_and_what_it_cost(
    fleets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_KEYRING", "file")
    fleet = fleets.Fleet(tmp_path, 3)
    own, sent = fleet.devices[0], {}

    def keep(step: FleetStep, device: object, asked: object, got: object) -> None:
        if device is own:
            sent[step] = got.body

    plan = fleet.plan(0)
    server = fleet.run_round(plan, after=keep)
    fleet.finish(plan, server, table=fleet.final_table())
    for device in fleet.devices:
        device.kill()
    with Vault.open(own.folder.vault) as vault:
        owner = visitor(own.folder, vault)
        text = unescape(owner.get("privacy").text)
        assert "Pause rounds" in text
        assert "this device begins no round" in owner.said("pause", paused="yes", page="privacy")
        assert PAUSED.read(vault) is not None
        assert "Pause rounds" in owner.said("pause", paused="no", page="privacy")
        assert PAUSED.read(vault) is None
        owner.client.close()
    assert len(sent) == 5
    for step, body in sent.items():
        row = f'<tr><th scope="row">{step}</th>'
        assert row in text
        assert sha256(body).hexdigest() in text.partition(row)[2].partition("</tr>")[0]
    total = sum(map(len, sent.values()))
    assert f"{total / 1000:.1f} kB sent" in text
    status = status_of(own.folder)
    record = status.rounds[0]
    for figure in (record.epsilon, record.local_epsilon, record.total_epsilon, status.budget.spent_epsilon):
        assert str(round_up(figure)) in text
    assert f"{100 * status.budget.share:.0f}% spent" in text
    assert f"of {fleets.EPSILON:g} at delta {fleets.DELTA:g}" in text
    assert "fleet <strong>films</strong>" in text
    assert "belongs to no fleet" not in text
    assert record.table_hash != record.receipt["model_hash"]
    assert record.receipt["model_hash"] in text
