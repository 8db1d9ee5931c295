#!/usr/bin/env python3
"""kill -9 at every step of every kind of change: before and after it there is one state, and nothing between.

    cargo build && python3 tests/management/steps.py [--binary FILE]

What crash.py does at random instants, here in order: strace kills the front end at the first renaming that a change makes,
then at the second of the next such change, and so on until one is answered; the same with what is removed, made and synced to
the disk. After each the front end is started anew and judged as by crash.py.
"""

import http.client
import random
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import crash
from support import (Authority, Failed, check, done, expect, main, model, serve, stop, wait_until, write_environment)

# What a change is made of. Each of a group counts as a step.
STEPS = {"renaming": "rename,renameat,renameat2", "removal": "unlink,unlinkat,rmdir", "directory": "mkdir,mkdirat",
         "sync": "fsync,fdatasync"}
# More than any change has.
MOST = 40
SERVICE = "iris"


class Bench:
    """A cluster, and what is known of it."""

    def __init__(self, arguments, stack):
        authority = Authority(arguments.directory / "ca")
        self.binary, self.draw = arguments.binary, random.Random(1)
        self.pairs = [authority.pair("one"), authority.pair("two")]
        self.serials, self.tls = [pair.serial for pair in self.pairs], authority.context()
        self.replicas = [model(stack) for _ in range(3)]
        self.environment = write_environment(arguments.directory / "env", pair=self.pairs[0])
        self.services = crash.Writer(self.draw, {SERVICE: crash.GONE})
        self.keeper = crash.Writer(self.draw, {"cluster": crash.Cluster(0, "Enabled", None)})
        self.keeper.pairs = self.pairs
        # Whether a change that was cut off is there.
        self.found = Counter()

    def next_change(self, admin, kind):
        """Who changes what, once there is what it takes."""
        if kind == "cluster":
            return self.keeper, *crash.cluster_change(self.keeper, self.pairs)
        service = self.services.known[SERVICE]
        if kind == "create" and service:
            self.ask(admin, self.services, SERVICE, *crash.remove(SERVICE))
        if kind != "create" and not service:
            self.ask(admin, self.services, SERVICE, *crash.create(SERVICE, self.draw, self.replicas))
        service = self.services.known[SERVICE]
        request, after = {
            "create": lambda: crash.create(SERVICE, self.draw, self.replicas),
            "change": lambda: crash.change(SERVICE, self.draw, self.replicas, service),
            "regenerate": lambda: crash.regenerate(SERVICE, self.draw, service),
            "remove": lambda: crash.remove(SERVICE)}[kind]()
        return self.services, SERVICE, request, after

    def ask(self, admin, writer, name, request, after):
        """Whether the change was answered."""
        writer.pending = (name, after)
        try:
            answer = admin.send(*request)
        except (OSError, http.client.HTTPException):
            return False
        expect(200 <= answer.status < 300, f"{answer} instead of success")
        writer.known[name] = crash.take_answer(admin, request, after, answer)
        writer.pending = None
        return True

    def judge(self, stack, before):
        front = serve(stack, self.binary, self.environment)
        check(self.binary, self.environment)
        run = crash.Run(0, 0)
        cluster = crash.judge_cluster(front, self.tls, self.serials, self.keeper, run)
        crash.judge_services(front, self.tls, cluster, self.services, before, run)
        crash.judge_list(front, [self.services])
        self.found.update(whole=run.whole, nothing=run.nothing)
        return front


@contextmanager
def killer(strace, process, calls, number):
    """strace kills `process` at its `number`th of `calls` from now on."""
    tracer = subprocess.Popen([strace, "-f", "-qq", "-p", str(process.pid), "-e", f"trace={calls}", "-e",
                               f"inject={calls}:signal=KILL:when={number}", "-o", "/dev/null"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def is_traced():
        expect(tracer.poll() is None, f"strace ended: {tracer.stderr.read() if tracer.poll() is not None else ''}")
        statuses = [task / "status" for task in Path(f"/proc/{process.pid}/task").iterdir()]
        return all("TracerPid:\t0\n" not in status.read_text() for status in statuses)

    try:
        wait_until("strace has every thread", is_traced)
        yield
    finally:
        stop(tracer)


def kill_at(strace, bench, stack, front, kind, calls, number):
    """One change, and the next life of the front end; `None` if the change has no such step."""
    admin = front.admin()
    writer, name, request, after = bench.next_change(admin, kind)
    before = dict(bench.services.known)
    with killer(strace, front.process, calls, number):
        answered = bench.ask(admin, writer, name, request, after)
        if not answered:
            front.process.wait(30)
    # It may also be struck right after its answer.
    if answered and front.process.poll() is None:
        return None
    front.kill()
    return bench.judge(stack, before)


def program(arguments, stack):
    strace = shutil.which("strace")
    expect(strace, "there is no strace on this machine (Debian package strace)")
    bench = Bench(arguments, stack)
    front = serve(stack, bench.binary, bench.environment)
    for kind in ("create", "change", "regenerate", "remove", "cluster"):
        struck = Counter()
        for step, calls in STEPS.items():
            for number in range(1, MOST):
                try:
                    after = kill_at(strace, bench, stack, front, kind, calls, number)
                except Failed as failure:
                    raise Failed(f"{kind}, killed at {step} {number}: {failure}") from None
                if not after:
                    break
                front, struck[step] = after, number
            expect(number < MOST - 1, f"{kind}: no end of steps that are a {step}")
        expect(struck["renaming"] and struck["sync"], f"{kind}: it was not killed where it writes, which shows nothing: {struck}")
        done(f"{kind}: " + ", ".join(f"killed at {step} 1 to {last}" for step, last in struck.items()))
    front.stop()
    done(f"{sum(bench.found.values())} kills: the change was there whole {bench.found['whole']} times,"
         f" and not at all {bench.found['nothing']} times")


if __name__ == "__main__":
    main(__doc__, program)
