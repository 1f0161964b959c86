"""A device whose vault an earlier version wrote takes part in the next round."""

from __future__ import annotations

from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.seen import _SEEN, read_seen


def test_a_device_that_knows_no_marks_of_its_reports_goes_on(reporting):
    device = reporting.devices[0]
    for server_round in (0, 1):
        plan = reporting.plan(server_round)
        reporting.answer_of(device, plan, reporting.collection(plan))
        with device.member.vault.transaction():
            values = _SEEN.read(device.member.vault)
            for name in ("receipted", "made"):  # an earlier version kept neither
                values.pop(name)
            _SEEN.write(device.member.vault, values)
        assert read_seen(device.member.vault, reporting.parties).made == ()
    assert len(RoundLog(device.member.vault).records()) == 2


def test_limits_of_an_earlier_version_are_read():
    old = {
        "epsilon": 8.0,
        "delta": 1e-5,
        "smallest_cohort": 3,
        "least_tau_thousandths": 500,
        "least_gamma_thousandths": 0,
        "least_own_noise": 0.0,
        "most_rounds_a_day": 100,
    }
    limits = OwnerLimits.from_values(old)
    assert (limits.least_parties, limits.every_seconds) == (1, 0)
