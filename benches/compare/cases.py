"""The cases: what is loaded how, in which setup, and what is asked of scorefront there.

Counts are those of `--scale 1`, where a turn takes a proxy some one to three seconds of CPU.
"""

from dataclasses import dataclass, field

from loads import H2load, Idle, Open, Own
from proxies import Setup

SIZES = {"100k": ("100 KiB", 100 << 10), "1m": ("1 MiB", 1 << 20), "10m": ("10 MiB", 10 << 20)}
TOTAL = 1 << 30
EVENTS = 200
NAMES = (1, 100, 10_000)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    unit: str
    load: object
    setup: Setup = field(default_factory=Setup)
    # The most that scorefront may cost, of the best peer or, compared with itself, of its first variant.
    bar: float | None = None
    # scorefront against itself: the arguments of each variant.
    variants: tuple = ()
    # Every turn has a process of its own.
    is_fresh: bool = False
    # The p99 may be no worse than any peer's.
    has_latency: bool = False

    @property
    def measured(self):
        return "KiB" if isinstance(self.load, Idle) else "µs"


def bodies():
    for direction in ("up", "down"):
        for size, (title, length) in SIZES.items():
            load = Own("calls", TOTAL // length, 8, (f"--{direction}", length))
            yield Case(f"{direction}-{size}", f"{title} {direction}", "body", load, Setup(large=True),
                       None if size == "100k" else 0.80)


def named(number):
    return {"names": number, "label": f"{number:,} {'name' if number == 1 else 'names'}"}


H1 = H2load(40_000, ("--h1", "-c64"))
HANDSHAKES = Own("handshakes", 5_000, 8)

CASES = {case.name: case for case in (
    Case("h1", "HTTP/1.1, 64 kept connections, small JSON", "call", H1, bar=0.85),
    Case("h2", "HTTP/2, 8 connections of 16 streams, small JSON", "call", H2load(40_000, ("-c8", "-m16")), bar=0.90),
    Case("handshake-ecdsa", "full handshake, ECDSA P-256", "handshake", HANDSHAKES, bar=0.65),
    Case("handshake-rsa", "full handshake, RSA 2048", "handshake", Own("handshakes", 2_000, 8), Setup(pair="rsa")),
    Case("handshake-resumed", "resumed handshake", "handshake", Own("handshakes", 5_000, 8, ("--resumed",)), bar=0.80),
    *bodies(),
    Case("events", "server-sent events of 1 KiB, 64 streams, one each 5 ms", "event",
         Own("calls", 256, 64, ("--events", EVENTS, "--interval-ms", 5), EVENTS)),
    Case("open", "open loop, 2,000 calls a second", "call", Open(2_000, 10), bar=0.75, has_latency=True),
    Case("closing", "replicas that close every connection", "call", Own("calls", 20_000, 64), Setup(closes=True),
         bar=0.85),
    Case("idle", "an idle TLS connection, memory", "connection", Idle(1_000), bar=0.80, is_fresh=True),
    Case("services", "a call of 64 services among many, with as many CNAMEs", "call", Own("calls", 40_000, 64), bar=1.05,
         variants=tuple(map(named, NAMES))),
    # Every service has connections of its own to its replicas: they are opened by the warm-up, and cold.
    Case("services-spread", "a call of every service among many in turn", "call",
         Own("calls", 40_000, 64, ("--spread",)), variants=tuple(map(named, NAMES))),
    Case("cnames", "a full handshake among many CNAMEs, each in turn", "handshake", HANDSHAKES, bar=1.05,
         variants=tuple(map(named, NAMES))),
    Case("threads", "HTTP/1.1 as above, on one and two threads", "call", H1, bar=1.10,
         variants=({"threads": 1, "label": "1 thread"}, {"threads": 2, "label": "2 threads"})),
)}


def chosen(words):
    """Cases by name or by what their names begin with."""
    if not words:
        return list(CASES.values())
    for word in words:
        if not any(name.startswith(word) for name in CASES):
            raise SystemExit(f"no case {word}; there are {', '.join(CASES)}")
    return [case for name, case in CASES.items() if any(name.startswith(word) for word in words)]
