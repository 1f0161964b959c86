"""Floods of connections, handshakes, half requests and slow bodies: how long a device waits at a server and a helper.

    python benchmarks/floods.py

A server and a helper run as processes of the same commands that people type, and the flood in a process of its own.
The device opens a new connection for every call. All share this machine, so that the delays hold the flood's own CPU
time too. A flood from another machine is bounded by address besides (`max_connections_of_address`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from palate.client.fleet.identity import DeviceKeys, NodeKey
from palate.client.fleet.transport.link import Link
from palate.client.vault import Vault
from palate.errors import FederationError
from palate.privacy.run_notice import RUN_PATH
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import read_key
from palate.server.fleet.setup import tls_authority
from palate.server.helper.cards import HelperCard
from palate.server.helper.remote import HttpsLink
from palate.simulation.fleet_demo import folders, running

MOST_DELAY_SECONDS = 5.0
CONNECTIONS = {"silent": 300, "handshakes": 20, "half requests": 60, "slow bodies": 60}
"""Connections of each flood; `handshakes` are made again as soon as they are done."""
_BETWEEN_CALLS_SECONDS = 0.25


def headers_of(key: NodeKey | None) -> str:
    """Headers of a request for a body of 100 kB; signed, if there is a key that the server knows."""
    lines = ["POST /v1/fleet/pull-messages HTTP/1.1", "host: fleet", "content-length: 100000"]
    if key is not None:
        moment = datetime.now(UTC).isoformat()
        lines += [
            "content-type: application/protobuf",
            f"flwr-public-key: {base64.b64encode(key.public_pem).decode()}",
            f"flwr-timestamp: {moment}",
            f"flwr-signature: {base64.b64encode(key.sign(moment.encode())).decode()}",
        ]
    return "\r\n".join(lines) + "\r\n\r\n"


async def attacker(host: str, port: int, kind: str, tls: ssl.SSLContext, request: Callable[[], str]) -> None:
    """Open one connection after the other, and hold each for as long as the server lets it."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(host, port, ssl=None if kind == "silent" else tls)
            try:
                if kind == "half requests":
                    writer.write(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: fl")
                if kind == "slow bodies":
                    writer.write(request().encode())
                while kind != "handshakes":
                    if kind == "slow bodies":
                        writer.write(b"x")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            if not await reader.read(1):
                                break
            finally:
                writer.close()
        await asyncio.sleep(0.0 if kind == "handshakes" else 0.1)


async def attack(address: str, kinds: list[str], seconds: float, key: NodeKey | None) -> None:
    """Flood one address with some kinds of connections for so long."""
    host, port = address.rsplit(":", 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # each connection that is closed on it is a warning
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    every = [
        asyncio.create_task(attacker(host, int(port), kind, tls, lambda: headers_of(key)))
        for kind in kinds
        for _ in range(CONNECTIONS[kind])
    ]
    await asyncio.wait(every, timeout=seconds)
    os._exit(0)  # what is still under way is closed with the process


def start(address: str, kinds: list[str], seconds: float, device: Path | None = None) -> subprocess.Popen[bytes]:
    """Begin a flood in a process of its own; with the keys of a device, if a folder is named."""
    command = [sys.executable, __file__, "--attack", address, "--seconds", str(seconds), "--kinds", ",".join(kinds)]
    return subprocess.Popen([*command, *([] if device is None else ["--device", str(device)])])


def delays(call: Callable[[], object], seconds: float) -> list[float]:
    """Call again and again for so long; seconds that each call took, with as many tries as it needed."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        while True:
            try:
                call()
                break
            except FederationError:
                time.sleep(0.1)
        taken.append(time.monotonic() - began)
        time.sleep(_BETWEEN_CALLS_SECONDS)
    return taken


@contextlib.contextmanager
def fleet(root: Path) -> Iterator[folders.DemoFleet]:
    """Let a server and a helper wait for devices."""
    demo = folders.build(root, *folders.choose(4, 1), rounds=2, epsilon=8.0, smallest=2, with_helper=True)
    helper, server = running.start_helper(demo), running.start_server(demo)
    try:
        running.await_server(server, running.EventTail(demo.fleet.events))
        yield demo
    finally:
        for program in (server, helper):
            if program is not None:
                program.stop()


def node_key(folder: Path) -> NodeKey:
    """Read the key with which a device signs its requests."""
    with Vault.open(folder) as vault:
        return DeviceKeys.load(vault).node


def measure(root: Path, seconds: float) -> list[dict[str, object]]:
    """Delays of a device's call of the server, and of the server's call of the helper, quiet and in each flood."""
    rows = []
    with fleet(root) as demo:
        config = load_config(demo.fleet.config)
        (_, device), (_, hostile) = list(demo.devices.items())[:2]
        key, authority = node_key(device.vault), root / "authority.pem"
        authority.write_bytes(tls_authority(demo.fleet).certificate.read_bytes())
        assert demo.helper is not None
        card, signer = HelperCard.open(demo.helper.card.read_bytes()), read_key(demo.fleet.server_key)
        parties = parties_of(demo.fleet, config)

        def ask_server() -> None:
            with Link(config.listen.address, key, authority=authority) as link:
                link.call(RUN_PATH, b"")

        def ask_helper() -> None:
            with HttpsLink(card, parties, signer, patience_seconds=0.0) as link:
                link.head()

        for who, address, call in (
            ("server", config.listen.address, ask_server),
            ("helper", card.address, ask_helper),
        ):
            call()
            for kinds in ([], *([kind] for kind in CONNECTIONS), list(CONNECTIONS)):
                flood = start(address, kinds, seconds + 4, hostile.vault) if kinds else None
                time.sleep(3.0 if kinds else 0.0)
                taken = sorted(delays(call, seconds))
                if flood is not None:
                    flood.wait()
                rows.append(
                    {
                        "who": who,
                        "flood": " + ".join(kinds) or "none",
                        "calls": len(taken),
                        "median_seconds": round(taken[len(taken) // 2], 3),
                        "most_seconds": round(taken[-1], 3),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Attack, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", metavar="HOST:PORT", help="only flood this address")
    parser.add_argument("--kinds", default=",".join(CONNECTIONS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", type=Path, help="vault whose node key signs slow bodies")
    given = parser.parse_args()
    if given.attack:
        key = None if given.device is None else node_key(given.device)
        asyncio.run(attack(given.attack, given.kinds.split(","), given.seconds, key))
        return
    with tempfile.TemporaryDirectory() as root:
        rows = measure(Path(root), given.seconds)
    worst = max(float(str(row["most_seconds"])) for row in rows)
    print(f"the longest delay is {worst:.2f} s, at most {MOST_DELAY_SECONDS:g} s are allowed")
    if worst > MOST_DELAY_SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
