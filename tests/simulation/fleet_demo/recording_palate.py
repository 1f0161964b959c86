"""`palate`, but it writes down what must never be written down: a device's noised vector before it is masked, and the
server's sum. Only the test that compares both starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from palate.cli.main import main

RECORDS = Path(os.environ["PALATE_TEST_RECORDS"])


def record_vectors(home: Path) -> None:
    from palate.client.fleet.worker import Worker

    contribute = Worker.contribute

    def recording(self, plan, history, head):
        made = contribute(self, plan, history, head)
        np.save(RECORDS / f"vector-{plan.server_round}-{home.name}.npy", made.vector)
        return made

    Worker.contribute = recording


def record_sums() -> None:
    from palate.privacy.enrolment import device_name
    from palate.server.fleet.operation import Operation

    apply_sum = Operation._apply

    def recording(self, plan, found):
        survivors = np.array([device_name(number) for number in found.survivors])
        bits = plan.terms.ring_bits
        np.savez(RECORDS / f"sum-{plan.server_round}.npz", total=found.vector, survivors=survivors, bits=bits)
        apply_sum(self, plan, found)

    Operation._apply = recording


if __name__ == "__main__":
    if "join" in sys.argv:
        record_vectors(Path(sys.argv[sys.argv.index("--folder") + 1]))
    else:
        record_sums()
    main()
