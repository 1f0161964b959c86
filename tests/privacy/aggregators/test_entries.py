"""The list of a register in memory."""

from __future__ import annotations

from palate.privacy.aggregators.admission import Entries, Entry


def test_a_list_of_devices_is_its_leaves_and_finds_each_of_them():
    entries = {device: Entry(device.to_bytes(32, "big"), 7 + device % 5) for device in (3, 1 << 63, 0, 12)}
    found = Entries.of(entries)
    assert len(found.leaves) == 48 * len(entries)
    assert dict(found) == entries
    assert list(found) == sorted(entries)
    assert found == entries
    assert found == Entries(found.leaves)
    assert found != Entries(found.leaves[48:])
    for absent in (1, 4, 13, (1 << 64) - 1):
        assert absent not in found
    assert 0 not in Entries(b"")
