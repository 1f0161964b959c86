"""CPU seconds of a cold `palate client recommend`, plain and worded, on a device that `palate client try` has made.

    palate client try --folder /tmp/demo && python benchmarks/owner_start.py /tmp/demo

Wall time depends on what else the machine does, so CPU time of the process is printed, the least of five runs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

RUNS = 5
WISHES = {
    "plain": [],
    "worded": ["a comedy from the 90s, but no romance"],
    "in German": ["eine Komödie ohne Romantik"],
    "in Chinese": ["不要爱情的喜剧"],
}


def cpu_seconds(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "palate.cli.main", "client", "recommend", *arguments], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    folder = ["--folder", sys.argv[1]]
    found = {name: min(cpu_seconds([*words, *folder]) for _ in range(RUNS)) for name, words in WISHES.items()}
    print(json.dumps({name: round(seconds, 3) for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
