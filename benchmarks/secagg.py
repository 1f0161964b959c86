"""What secure aggregation costs: CPU-seconds and bytes of one device and of the server, every device in this process.

A round is played message by message; the last device's calls and the server's are timed. The table of the plan that
the vectors belong to is not counted. "first round" is a roster with everybody's certificate, "later" one without.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import numpy as np
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from outcome import Check, Outcome, command, print_checks
from rich.console import Console

from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.offer import DevicePolicy, Offer
from palate.privacy.secagg.server import ServerRound, Stage

VECTOR_LENGTH = 60_000
DEVICE_CPU = {300: 0.25}
SERVER_CPU = {(300, 5): 1.5, (100, 30): 1.0}
KILOBYTES_UP, KILOBYTES_DOWN = {100: 253, 300: 278}, {100: 30, 300: 89}
"""Targets: CPU-seconds, and kilobytes of a device within a fifth of what a prototype without certificates took."""


class Clock:
    """CPU-seconds by name."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def run(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function and add what it takes."""
        before = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            self.spent[name] += time.process_time() - before


def play(devices: int, dropout: int, *, known: bool) -> dict[str, Any]:
    """Play one round with a percentage of the devices gone after they shared; tau 0.6, gamma 0.1."""
    authority, server_key = EnrolmentAuthority.generate("benchmark"), Ed25519PrivateKey.generate()
    offer = Offer(
        fleet="benchmark",
        run="benchmark",
        server_round=1,
        plan_hash="ab" * 32,
        vector_length=VECTOR_LENGTH,
        ring_bits=32,
        sensitivity=1 << 14,
        share_variance=1 << 22,
        honest_shares=devices // 2,
        max_roster=devices,
        gamma_thousandths=100,
        tau_thousandths=600,
        n_min=20,
        issued_at=1,
    )
    numbers = list(range(1, devices + 1))
    identities = {}
    for number in numbers:
        key = Ed25519PrivateKey.generate()
        identities[number] = DeviceIdentity(authority.enrol(number, key.public_key()), key)
    certificates = {number: identity.certificate for number, identity in identities.items()} if known else {}
    server = ServerRound(offer, server_key=server_key, authority_key=authority.public_key)
    policy = DevicePolicy(smallest_cohort=20, gamma_thousandths=100)
    clock, up, down = Clock(), Counter[str](), Counter[str]()

    def begin(number: int) -> DeviceRound:
        return DeviceRound(
            server.offer_bytes,
            plan_hash=offer.plan_hash,
            identity=identities[number],
            server_key=server_key.public_key(),
            authority_key=authority.public_key,
            policy=policy,
            known=certificates,
        )

    rounds = {number: begin(number) for number in numbers}
    rng = np.random.default_rng(0)
    vector = rng.integers(0, 1 << 32, VECTOR_LENGTH, dtype=np.uint64).astype(np.uint32)
    everybody = set(numbers)
    gone, watched = set(numbers[: devices * dropout // 100]), numbers[-1]
    inputs = dict.fromkeys(numbers, b"")
    down["offer"] = len(server.offer_bytes)
    for stage in Stage:
        for number, data in inputs.items():
            if stage >= Stage.MASK and number in gone:
                continue
            party = rounds[number]
            step = {
                Stage.ADVERTISE: lambda _, party=party: party.advertise(),
                Stage.SHARE: party.share,
                Stage.MASK: lambda data, party=party: party.mask(data, vector),
                Stage.CONFIRM: party.confirm,
                Stage.REVEAL: party.reveal,
            }[stage]
            answer = clock.run("device" if number == watched else "others", step, data)
            if number == watched:
                down[stage.name.lower()] += len(data)
                up[stage.name.lower()] += len(answer)
            clock.run("server", server.receive, stage, number, answer)
        skip = {"known": dict.fromkeys(numbers, everybody)} if stage is Stage.ADVERTISE and known else {}
        inputs = clock.run("server", server.close, stage, **skip)
    expected = vector * np.uint32(devices - len(gone))  # wraps around, as the ring does
    if not np.array_equal(server.result().vector, expected):
        raise AssertionError("the sum is wrong")
    return {
        "devices": devices,
        "dropout_percent": dropout,
        "known_certificates": known,
        "device_cpu_seconds": clock.spent["device"],
        "server_cpu_seconds": clock.spent["server"],
        "kilobytes_up": sum(up.values()) / 1e3,
        "kilobytes_down": sum(down.values()) / 1e3,
        "bytes_up": dict(up),
        "bytes_down": dict(down),
    }


def main(
    sizes: Annotated[str, typer.Option(help="Devices and dropout percent, as 100:30,300:5.")] = "100:5,100:30,300:5",
) -> None:
    """Play rounds and write results/secagg.json."""
    talk = Console(stderr=True)
    checks, details = [], []
    for case in sizes.split(","):
        devices, dropout = map(int, case.split(":"))
        for known in (False, True):
            name = f"n={devices}, {dropout}% gone, {'later' if known else 'first round'}"
            talk.print(f"{name} ...", highlight=False)
            found = play(devices, dropout, known=known)
            details.append(found)
            up, down = (table.get(devices) if known else None for table in (KILOBYTES_UP, KILOBYTES_DOWN))
            checks += [
                Check(
                    name=f"{name}, device",
                    measured=found["device_cpu_seconds"],
                    unit="CPU-s",
                    target=DEVICE_CPU.get(devices),
                ),
                Check(
                    name=f"{name}, server",
                    measured=found["server_cpu_seconds"],
                    unit="CPU-s",
                    target=SERVER_CPU.get((devices, dropout)),
                ),
                Check(name=f"{name}, up", measured=found["kilobytes_up"], unit="KB", target=up and 1.2 * up),
                Check(name=f"{name}, down", measured=found["kilobytes_down"], unit="KB", target=down and 1.2 * down),
            ]
    outcome = Outcome("secagg", tuple(checks), (), {"vector_length": VECTOR_LENGTH, "rounds": details})
    outcome.write()
    print_checks([outcome], Console())


if __name__ == "__main__":
    command(main)
