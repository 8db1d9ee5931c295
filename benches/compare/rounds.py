"""One case: starts replica and proxies, and has them take turns under the load, in an order that rotates with the rounds."""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import certificates
import support
from loads import Refused, Target, warm_up
from proxies import Place

# Of a case's load, before anything counts.
WARM_UP = 0.25
# Ten thousand pairs take a while to read.
PATIENCE = 120
# Of the open load's calls the most that may be late, in ms (p99); a turn above it says more of the machine than of a proxy.
LATE_MS = 3
REPEATS = 2


def run(case, contestants, arguments):
    """What came out in each round, by proxy; `Refused` with the first error."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorefront-compare-")))
        pair = certificates.make(work, case.setup.pair)
        options = ["--close"] if case.setup.closes else []
        replica = support.start(stack, [arguments.tool, "replica", *options], output=subprocess.PIPE)
        replica_port = int(replica.stdout.readline())

        def started(stack, proxy):
            return start(stack, proxy, case, pair, replica_port, work, arguments)

        targets = {}
        if not case.is_fresh:
            targets = {proxy.name: started(stack, proxy) for proxy in contestants}
            for target in targets.values():
                turn(target, lambda: (warm_up(target), case.load.run(target, arguments.scale * WARM_UP, 0)))
        rounds = []
        for number in range(arguments.rounds):
            first = number % len(contestants)
            found = {}
            for proxy in contestants[first:] + contestants[:first]:
                with ExitStack() as own:
                    target = targets.get(proxy.name) or started(own, proxy)
                    if case.is_fresh:
                        turn(target, lambda: warm_up(target))
                    for _ in range(1 + REPEATS):
                        outcome = turn(target, lambda: case.load.run(target, arguments.scale, number))
                        if outcome.lag.get("p99", 0) <= LATE_MS:
                            break
                        print(f"  {proxy.title}: disturbed, the load was {outcome.lag['p99']} ms late", file=sys.stderr)
                    found[proxy.name] = outcome
                if arguments.verbose:
                    print(f"  round {number + 1}, {proxy.title}: {outcome.figure:.1f} {case.measured} a {case.unit},"
                          f" {outcome.wall:.2f} s", file=sys.stderr)
            rounds.append(found)
        return rounds


def turn(target, load):
    """Does that; what goes wrong is said with the proxy's name, and with what it said itself."""
    try:
        return load()
    except (Refused, OSError, subprocess.SubprocessError) as error:
        said = last_words(target.work)
        raise Refused(f"{target.name}: {error}{f' (it says: {said})' if said else ''}") from None


def last_words(work):
    """The last that a proxy complained of."""
    lines = (work / "errors").read_text(errors="replace").splitlines()
    lines = [line for line in lines if line.strip() and '"level":"info"' not in line.lower()]
    return lines[-1][:400] if lines else ""


def start(stack, proxy, case, pair, replica_port, work, arguments):
    """A proxy with a directory of its own, listening."""
    own = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
    place = Place(own, support.free_port(), replica_port, pair, case.setup)
    output, errors = (stack.enter_context(open(own / name, "wb")) for name in ("output", "errors"))
    threads = getattr(proxy, "threads", 1)
    # One thread has a CPU to itself; two have both, and share the second with load and replica.
    cpus = support.SERVER_CPU if threads == 1 else f"{support.SERVER_CPU},{support.LOAD_CPU}"
    process = support.start(stack, proxy.command(place), cpus, output, errors)
    try:
        support.wait_for(place.port, process, PATIENCE)
    except SystemExit as failure:
        raise Refused(f"{proxy.title}: {failure}: {last_words(own)}") from None
    # Whoever has just started may still be busy with itself.
    time.sleep(0.3)
    return Target(proxy.title, process.pid, place.port, getattr(proxy, "names", 1), pair.cert, own, arguments.tool)
