"""The loads: a tool that works against one proxy, whose CPU and memory are read before and after, and nothing else with them.

Every answer is checked. A load with any error raises `Refused`, and there is no figure.
"""

import json
import re
import select
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import measure
import support
from proxies import CIPHER, KEY

PATIENCE = 600
# Idle connections are looked at when timers of a second or two have run.
SETTLING = 3.0


class Refused(Exception):
    """Not every answer was right; the run means nothing."""


@dataclass
class Target:
    """A proxy that runs."""

    name: str
    pid: int
    port: int
    names: int
    ca: Path
    work: Path
    tool: Path


@dataclass
class Outcome:
    """Of one load on one proxy. `units` is what CPU or memory is divided by."""

    units: int
    wall: float
    cpu: measure.Spent | None = None
    kib: float | None = None
    latency: dict = field(default_factory=dict)
    lag: dict = field(default_factory=dict)

    @property
    def figure(self):
        """Microseconds of CPU, or KiB, for one unit."""
        return (self.cpu.seconds * 1e6 if self.kib is None else self.kib) / self.units


@dataclass(frozen=True)
class H2load:
    """nghttp2's load generator. It says how many answers were 2xx, and of how many bytes."""

    count: int
    arguments: tuple

    def run(self, target, scale, _):
        count = max(int(self.count * scale), 200)
        body = target.work / "call.json"
        body.write_bytes(support.BODY)
        command = ["taskset", "-c", str(support.LOAD_CPU), "h2load", "-t1", *self.arguments, f"-n{count}", "-d", body,
                   f"--tls13-ciphers={CIPHER}", "--groups=X25519", f"--connect-to=127.0.0.1:{target.port}",
                   "-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json",
                   f"https://localhost:{target.port}{support.PATH}"]
        before, began = measure.cpu(target.pid), time.monotonic()
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        wall, after = time.monotonic() - began, measure.cpu(target.pid)
        good = re.search(r"status codes: (\d+) 2xx", said.stdout)
        data = re.search(r"traffic: .*\((\d+)\) data", said.stdout)
        expected = count * len(support.ANSWER)
        if said.returncode or not good or int(good[1]) != count:
            raise Refused(f"h2load had {good[1] if good else 'no'} good answers of {count}")
        if not data or int(data[1]) != expected:
            raise Refused(f"h2load got {data[1] if data else 'no'} bytes of bodies in place of {expected}")
        if f"Cipher: {CIPHER}" not in said.stdout:
            raise Refused(f"the cipher suite was not {CIPHER}")
        return Outcome(count, wall, measure.spent(before, after))


@contextmanager
def tool(target, kind, options):
    """Our own load generator (src/), ready to begin: a function that has it begin, or go on, and returns its figures."""
    command = ["taskset", "-c", str(support.LOAD_CPU), target.tool, kind, "--port", target.port, "--ca", target.ca,
               "--key", KEY, "--names", target.names, *options]
    process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)

    def line():
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise Refused(f"the load was not over after {PATIENCE} s")
        text = process.stdout.readline()
        if not text:
            raise Refused(process.stderr.read().decode().strip() or "the load ended without a word")
        return text.decode().strip()

    def go():
        process.stdin.write(b"\n")
        process.stdin.flush()
        return json.loads(line())

    try:
        line()
        # After so many handshakes everybody comes to rest.
        time.sleep(0.1)
        yield go
        process.stdin.close()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


@dataclass(frozen=True)
class Own:
    """`calls` or `handshakes` of our own tool: so many, all of them verified byte by byte or by their kind."""

    kind: str
    count: int
    connections: int
    options: tuple = ()
    # Events in one answer.
    units: int = 1

    def run(self, target, scale, _):
        count = max(int(self.count * scale), 2 * self.connections)
        options = ["--count", count, "--connections", self.connections, *self.options]
        with tool(target, self.kind, options) as go:
            before = measure.cpu(target.pid)
            said = go()
            after = measure.cpu(target.pid)
        if said["done"] != count:
            raise Refused(f"{said['done']} were done of {count}")
        return Outcome(count * self.units, said["seconds"], measure.spent(before, after))


@dataclass(frozen=True)
class Open:
    """Calls that come when they are due, the same ones for every proxy of a round."""

    rate: int
    seconds: float

    def run(self, target, scale, number):
        options = ["--rate", self.rate, "--seconds", max(self.seconds * scale, 0.5), "--seed", number + 1]
        with tool(target, "open", options) as go:
            before = measure.cpu(target.pid)
            said = go()
            after = measure.cpu(target.pid)
        return Outcome(said["done"], said["seconds"], measure.spent(before, after), latency=said["latency"],
                       lag=said["lag"])


@dataclass(frozen=True)
class Idle:
    """Connections that made a call each and wait; what is divided is the memory that they added."""

    connections: int

    def run(self, target, scale, _):
        count = max(int(self.connections * scale), 50)
        with tool(target, "idle", ["--connections", count]) as go:
            before = measure.memory(target.pid)
            said = go()
            time.sleep(SETTLING)
            after = measure.memory(target.pid)
            # Another call on each: nobody may have closed them.
            if go()["done"] != count:
                raise Refused("idle connections were closed")
        return Outcome(count, said["seconds"], kib=after - before)


def warm_up(target):
    """A few calls by our own tool, whose answers are verified whole."""
    Own("calls", 64, 4).run(target, 1, 0)
