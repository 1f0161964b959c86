"""What a flood takes of the memory is little, and is given back: a server is as small after it as before."""

from __future__ import annotations

import json
import subprocess
import sys

FLOOD = """
import json, socket, sys, time
from pathlib import Path
import psutil
from palate.server.fleet.transport import listening
from palate.server.fleet.transport.server import FleetServer

listening._MEMORY_BACK_WITHIN_SECONDS = 0.2
certificate, key, state = map(Path, sys.argv[1:])
megabytes = lambda: psutil.Process().memory_info().rss / 1e6
with FleetServer(state, certificate=certificate, key=key) as fleet:
    for wave in range(2):
        before = megabytes()
        opened = [socket.create_connection(("127.0.0.1", fleet.port)) for _ in range(400)]
        time.sleep(0.5)
        during = megabytes()
        for each in opened:
            each.close()
        end = time.monotonic() + 5
        while megabytes() > before + 6 and time.monotonic() < end:
            time.sleep(0.1)
print(json.dumps({"during": during - before, "after": megabytes() - before}))
"""
"""Two floods: the first has the process load what it needs for connections."""


def test_a_flood_costs_a_server_little_memory_and_none_of_it_for_good(pki, tmp_path):
    arguments = [str(pki.server.certificate), str(pki.server.key), str(tmp_path / "state")]
    done = subprocess.run([sys.executable, "-c", FLOOD, *arguments], capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout)
    assert grown["during"] < 400 * 0.15, "a connection costs less than 150 kB"
    assert grown["after"] < 6
