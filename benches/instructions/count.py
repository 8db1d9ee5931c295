#!/usr/bin/env python3
"""Counts the instructions of the request path and its parts, and fails where one costs more than it did.

    count.py                      # all cases, against baseline.toml
    count.py http1 http2          # some of them
    count.py --update             # writes baseline.toml: commit it with the reason for the change
    count.py --keep DIR http1     # leaves what callgrind wrote: callgrind_annotate DIR/http1.2

It builds the cases in the front end's own release profile and runs each under callgrind (Debian: valgrind), which counts
instructions of user space one by one: the same at every run, however busy the machine is. docs/benchmarks.md says what
differs between machines.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASELINE = HERE / "baseline.toml"
BINARY = ROOT / "target/release/scorefront-instructions"

# What a case may differ from its baseline by.
TOLERANCE = 0.03

# And by so many instructions: the smallest cases change by that when the compiler inlines something else elsewhere.
SLACK = 40

# See src/counting.rs.
CALLGRIND = [
    "valgrind",
    "--tool=callgrind",
    "--toggle-collect=*::counting::counted*",
    "--toggle-collect=*::counting::aside*",
    "--dump-before=*::counting::mark*",
]

# For big copies glibc takes one instruction of which callgrind counts every byte; with this it takes vectors.
TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"

HEAD = """\
# Instructions for one of each case, as benches/instructions/count.py counts them. Written by its --update: commit it
# together with what changed them, and say why they are more.
"""


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("cases", nargs="*", metavar="CASE")
    options.add_argument("--update", action="store_true", help="write baseline.toml")
    options.add_argument("--keep", type=Path, metavar="DIR", help="where to leave what callgrind wrote")
    options = options.parse_args()

    build()
    listed = dict(line.split() for line in run([BINARY]).splitlines())
    if unknown := set(options.cases) - set(listed):
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(listed)}")
    baseline = tomllib.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    before, made_with = baseline.get("instructions", {}), tools()
    # What other tools made is not comparable to the instruction.
    for tool, version in baseline.get("made_with", {}).items():
        if made_with.get(tool) != version:
            print(f"the baseline was made with {tool} {version}, and this is {made_with.get(tool)}")

    counts = {}
    print(f"{'case':24}{'instructions':>14}{'baseline':>14}{'change':>9}")
    for case in options.cases or listed:
        counts[case] = round(count(case, options.keep) / int(listed[case]))
        change = f"{counts[case] / before[case] - 1:+.2%}" if case in before else "new"
        print(f"{case:24}{counts[case]:14,}{before.get(case, 0):14,}{change:>9}", flush=True)

    if options.update:
        kept = {case: before[case] for case in listed if case in before}
        write(made_with, {case: (kept | counts)[case] for case in listed if case in kept | counts})
        return
    wrong = [f"{case}: is in the baseline and is no case" for case in before if case not in listed]
    wrong += [f"{case}: is not in the baseline" for case in counts if case not in before]
    for case in counts.keys() & before.keys():
        change = counts[case] / before[case] - 1
        if abs(counts[case] - before[case]) <= SLACK:
            continue
        if change > TOLERANCE:
            wrong.append(f"{case}: costs {change:.1%} more than its baseline; {TOLERANCE:.0%} are allowed")
        elif change < -TOLERANCE:
            print(f"{case}: costs {-change:.1%} less than its baseline. Let that follow: --update")
    if wrong:
        sys.exit("\n".join([*wrong, "If that has to be: benches/instructions/count.py --update, and say in the commit why."]))


def build():
    """Builds the cases from the front end's own lock file and in its own profile."""
    shutil.copy(ROOT / "Cargo.lock", HERE / "Cargo.lock")
    profile = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["release"]
    settings = [f"--config=profile.release.{key}={json.dumps(value)}" for key, value in profile.items()]
    command = ["cargo", "build", "--release", "--manifest-path", HERE / "Cargo.toml", "--target-dir", ROOT / "target"]
    subprocess.run([*command, *settings], check=True)


def count(case, keep):
    """What callgrind counted between the case's two marks."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(keep or directory) / case
        out.parent.mkdir(parents=True, exist_ok=True)
        run([*CALLGRIND, f"--callgrind-out-file={out}", BINARY, case])
        # The first file is what was counted up to the first mark, the second what was counted up to the second.
        return int(re.search(r"^totals: (\d+)$", Path(f"{out}.2").read_text(errors="replace"), re.MULTILINE)[1])


def tools():
    """What the counts depend on besides the code."""
    return {
        "rustc": run(["rustc", "--version"]).split()[1],
        "valgrind": run(["valgrind", "--version"]).strip().removeprefix("valgrind-"),
        "glibc": platform.libc_ver()[1],
        "machine": platform.machine(),
    }


def write(made_with, counts):
    lines = [HEAD, "[made_with]", *(f'{tool} = "{version}"' for tool, version in made_with.items())]
    lines += ["", "[instructions]", *(f"{case} = {count}" for case, count in counts.items())]
    BASELINE.write_text("\n".join(lines) + "\n")


def run(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"GLIBC_TUNABLES": TUNABLES})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
