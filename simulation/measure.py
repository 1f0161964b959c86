"""What a run costs: CPU-seconds and peak memory of this process and its children."""

from __future__ import annotations

import resource
import sys
import time

import psutil


def cpu_seconds() -> float:
    """CPU-seconds of this process, all threads, and of its live children (Ray's workers)."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        total += times.user + times.system
    return total


def peak_memory_mb() -> float:
    """Largest resident set of this process or of one finished child, in MB (10**6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit / 1e6
