#!/usr/bin/env python3
"""Three front ends before four replicas that run one request at a time: beside one front end, and while one of the three
comes and goes.

    cargo build --release
    cargo build --release --manifest-path benches/tail/Cargo.toml
    python3 benches/cluster/cluster.py [--seconds 20] [--rounds 5] [--changes 5] [--check]

Needs openssl and taskset (Debian: openssl util-linux); takes a quarter of an hour, or what is left of it with fewer rounds.

Replicas, load and its schedule are those of benches/tail: service times exponential with a mean of 20 ms, so that four
replicas can do 200 a second, and calls as a Poisson process over kept TLS connections, whatever is still under way. The
three front ends are called in turn; each call is the same work at the same time, whether there are three or one. All share
two CPUs with the load and the replicas.

First, how long calls take at shares of what the replicas can do, and in a flood of twice that, in which most are refused: the
p99 of three front ends by that of one, and the most requests that any replica held at one time. Then what changes cost,
at 80 %, the two that stay being called: the one that the replicas belong to is killed (-9), started again, asked to stop.
Of each: calls that failed, how long after the change the last of them was due, the longest that any call took, and the most
requests at a replica.

`--check` ends with status 1 unless no replica ever held two requests (but for the kill, where what a dead front end had
begun may meet what another one begins), nothing failed but what the killed one had, and the p99 of three is at most 1.5
times that of one.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benches/rotation"), str(ROOT / "benches/tail")]

import support  # noqa: E402
import tail  # noqa: E402

KEY = "benchmark-key"
REPLICAS = 4
CAPACITY = REPLICAS / (tail.MEAN_US / 1e6)
SHARES = (80, 95)
FLOOD = 200
CPUS = f"{support.SERVER_CPU},{support.LOAD_CPU}"
# As much as may wait for as long as it takes, so that what differs below capacity is how long that is; in the flood most is refused.
QUEUE = 'max_queue = 100\nmax_queue_wait = "30s"\n'
# A change comes so many seconds into the load, which goes on for as long again.
BEFORE = 4


class Front:
    """One front end, of a cluster or alone."""

    def __init__(self, stack, arguments, work, name, replicas, members=(), own=None):
        self.stack, self.arguments, self.own = stack, arguments, own
        self.port, self.admin, self.directory = support.free_port(), support.free_port(), work / name
        self.directory.mkdir()
        for file in ("cert.pem", "key.pem"):
            (self.directory / file).write_text((work / file).read_text())
        addresses = ", ".join(f'"http://127.0.0.1:{replica}"' for replica in replicas)
        cluster = ""
        if own:
            (self.directory / "cluster.secret").write_text("0123456789abcdef0123456789abcdef\n")
            (self.directory / "cluster.secret").chmod(0o600)
            cluster = f'[cluster]\nlisten = "{own}"\nsecret_file = "cluster.secret"\nmembers = {json.dumps(members)}\n'
        (self.directory / "scorefront.toml").write_text(
            f'[frontend]\nhttps = "127.0.0.1:{self.port}"\nthreads = 1\ndrain_grace = "1s"\n'
            f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n[log]\naccess = true\nformat = "json"\n{cluster}'
            '[[cname]]\nname = "localhost"\ncert_pem = "cert.pem"\nkey_pem = "key.pem"\n'
            f'[[service]]\nname = "iris"\nprimary_key_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
            f'{QUEUE}replicas = [{addresses}]\n')
        self.process = None
        self.start()

    def start(self):
        errors = self.stack.enter_context(open(self.directory / "errors", "ab"))
        command = [self.arguments.binary, "serve", "--config", self.directory / "scorefront.toml"]
        self.process = support.start(self.stack, command, CPUS, errors=errors)
        support.wait_for(self.port, self.process)

    def view(self):
        return support.admin(f"127.0.0.1:{self.admin}", "/v1/cluster")[1]




def settle(fronts):
    """Waits until all have agreed."""
    deadline = time.monotonic() + 30
    while True:
        views = [front.view() for front in fronts]
        counts = [sum(member["member"] for member in view["members"]) for view in views]
        if all(view["settled"] for view in views) and counts == [len(fronts)] * len(fronts):
            return views[0]["services"][0]["deployments"][0]["owners"][0]["address"]
        if time.monotonic() > deadline:
            raise SystemExit(f"the front ends do not agree: {views}")
        time.sleep(0.02)


def load_command(arguments, work, fronts, share, seconds, seed):
    ports = [argument for front in fronts for argument in ("--port", str(front.port))]
    return ["taskset", "-c", CPUS, arguments.tool, "load", *ports, "--path", support.PATH, "--ca", work / "cert.pem",
            "--header", f"Authorization: Bearer {KEY}", "--seed", str(seed), "--rate", str(CAPACITY * share / 100),
            "--mean-us", str(tail.MEAN_US), "--warmup", "1", "--seconds", str(seconds)]


def run_load(arguments, work, control, fronts, share, seed):
    tail.rest(control)
    command = load_command(arguments, work, fronts, share, arguments.seconds, seed)
    output = subprocess.run(command, stdout=subprocess.PIPE, timeout=arguments.seconds + 120, check=True)
    figures = json.loads(output.stdout)
    figures["at_once"] = max(support.admin(control, "/stats")[1]["at_once"])
    return figures


def failed(figures):
    return sum(figures["errors"].values()) + figures["refused"]["count"]


def steady(arguments, work, control, one, three):
    """Prints how three do beside one; returns what of the bar they miss."""
    missed = []
    for share in (*SHARES, FLOOD):
        found = {"one": [], "three": []}
        for number in range(arguments.rounds):
            order = [("one", [one]), ("three", three)]
            for name, fronts in order if number % 2 == 0 else reversed(order):
                found[name].append(run_load(arguments, work, control, fronts, share, arguments.seed + number))
                print(f"  {share} %, round {number + 1}, {name}: p99 {found[name][-1]['answered']['p99']} ms,"
                      f" at once {found[name][-1]['at_once']}, the load {found[name][-1]['lag']['p99']} ms late (p99)",
                      file=sys.stderr)
        print(f"\n{share} % of what the replicas can do, median of {arguments.rounds} rounds of {arguments.seconds} s, ms:")
        for name, rounds in found.items():
            middle = {column: statistics.median(figures["answered"][column] for figures in rounds)
                      for column in ("p50", "p99", "p999")}
            print(f"  {name:6} p50 {middle['p50']:8.1f}  p99 {middle['p99']:8.1f}  p99.9 {middle['p999']:8.1f}"
                  f"  answered {sum(figures['answered']['count'] for figures in rounds)}"
                  f"  refused {sum(figures['refused']['count'] for figures in rounds)}"
                  f"  errors {sum(sum(figures['errors'].values()) for figures in rounds)}"
                  f"  at once {max(figures['at_once'] for figures in rounds)}")
        ratios = [ours["answered"]["p99"] / its["answered"]["p99"]
                  for ours, its in zip(found["three"], found["one"])]
        ratio = statistics.median(ratios)
        print(f"  p99 of three by that of one: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        if ratio > arguments.bar:
            missed.append(f"at {share} % the p99 of three is {ratio:.2f} times that of one, not {arguments.bar} or less")
        at_once = max(figures["at_once"] for figures in found["three"])
        if at_once > 1:
            missed.append(f"at {share} % a replica had {at_once} requests at once")
        if share < 100 and any(failed(figures) for figures in found["three"]):
            missed.append(f"at {share} % calls failed")
    return missed


def change(arguments, work, control, fronts, act, seed):
    """A load during which `act` is done to the cluster, and what became of it."""
    tail.rest(control)
    record = work / "record"
    command = load_command(arguments, work, fronts, 80, 2 * BEFORE, seed) + ["--record", record]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE)
    # The load's own beginning and its warm-up.
    time.sleep(BEFORE + 2)
    began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    act()
    output, _ = process.communicate(timeout=120)
    if process.returncode:
        raise SystemExit("no load, see above")
    calls = [line.split() for line in record.read_text().splitlines()]
    after = [(int(due), int(done), " ".join(result)) for _, due, _, done, *result in calls if int(done) > began]
    lost = [(due, done, result) for due, done, result in after if not result.startswith("2")]
    return {
        "failed": len(lost),
        "results": sorted({result for *_, result in lost}),
        "last_ms": max(((due - began) / 1e6 for due, *_ in lost), default=0),
        "longest_ms": max((done - due) / 1e6 for due, done, _ in after),
        "at_once": max(support.admin(control, "/stats")[1]["at_once"]),
    }


def changes(arguments, work, control, three):
    """Prints what changes cost; returns what of the bar they miss."""
    home = settle(three)
    moving = next(front for front in three if front.own == home)
    staying = [front for front in three if front is not moving]

    def kill():
        moving.process.kill()
        moving.process.wait()

    def stop():
        moving.process.send_signal(signal.SIGTERM)

    found = {"killed": [], "started again": [], "asked to stop": []}
    for number in range(arguments.changes):
        seed = arguments.seed + 100 * number
        found["killed"].append(change(arguments, work, control, staying, kill, seed))
        settle(staying)
        found["started again"].append(change(arguments, work, control, staying, moving.start, seed + 1))
        settle(three)
        found["asked to stop"].append(change(arguments, work, control, staying, stop, seed + 2))
        moving.process.wait(60)
        settle(staying)
        moving.start()
        settle(three)
    print(f"\nThe home of the replicas, {arguments.changes} times each, at 80 %, the two others being called:")
    missed = []
    for name, rounds in found.items():
        print(f"  {name:14} calls failed {[one['failed'] for one in rounds]}"
              f" {sorted({result for one in rounds for result in one['results']})},"
              f" the last due {max(one['last_ms'] for one in rounds):.0f} ms after,"
              f" the longest call {max(one['longest_ms'] for one in rounds):.0f} ms,"
              f" at once {max(one['at_once'] for one in rounds)}")
        if name == "killed":
            if any(one["failed"] > REPLICAS + 20 for one in rounds):
                missed.append("a kill cost more calls than the dead front end had")
        elif any(one["failed"] for one in rounds) or any(one["at_once"] > 1 for one in rounds):
            missed.append(f"{name}: calls failed, or a replica had two requests at once")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=support.default_binary())
    parser.add_argument("--tool", type=Path, default=tail.default_tool())
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--changes", type=int, default=5)
    parser.add_argument("--bar", type=float, default=1.5, help="the most that the p99 of three may be, of that of one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for needed in (arguments.binary, arguments.tool):
        if not needed.exists():
            parser.error(f"{needed} is not there; build it as the top of this file says")
    print(f"on {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory(prefix="scorefront-cluster-") as directory, ExitStack() as stack:
        work = Path(directory)
        tail.write_certificate(work)
        replica = support.start(stack, [arguments.tool, "replica", "--count", REPLICAS], CPUS, subprocess.PIPE)
        said = json.loads(replica.stdout.readline())
        control = f"127.0.0.1:{said['control']}"
        one = Front(stack, arguments, work, "one", said["ports"])
        owns = [f"127.0.0.1:{support.free_port()}" for _ in range(3)]
        three = [Front(stack, arguments, work, f"three-{n}", said["ports"], owns, own) for n, own in enumerate(owns)]
        settle(three)
        missed = []
        if arguments.rounds:
            missed += steady(arguments, work, control, one, three)
        if arguments.changes:
            missed += changes(arguments, work, control, three)
    for line in missed:
        print(f"missed: {line}")
    if arguments.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
