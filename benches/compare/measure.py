"""What a process and its children cost: CPU seconds and memory, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cpu:
    """Read at one time."""

    # Nanoseconds on a CPU by thread: exact, but what a thread used is gone with it.
    threads: dict
    # Of the processes, ended threads and children that were waited for included; in ticks of 10 ms.
    user: float
    system: float


@dataclass
class Spent:
    seconds: float
    user: float
    system: float


def tree(pid):
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu(pid):
    threads, user, system = {}, 0, 0
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            threads[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return Cpu(threads, user / TICKS, system / TICKS)


def spent(before, after):
    """CPU seconds between two readings; by ticks if a thread ended in between."""
    user, system = after.user - before.user, after.system - before.system
    seconds = sum(time - before.threads.get(thread, 0) for thread, time in after.threads.items()) / 1e9
    if not before.threads.keys() <= after.threads.keys():
        seconds = user + system
    share = user / (user + system) if user + system else 0.5
    return Spent(seconds, seconds * share, seconds * (1 - share))


def memory(pid):
    """KiB in memory, what is shared counted in parts (PSS)."""
    total = 0
    for process in tree(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total
