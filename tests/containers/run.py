#!/usr/bin/env python3
"""The container, and containers of it together, on this machine's Docker engine.

    python3 tests/containers/run.py [--only NAME …] [--program FILE]

  * build: the Dockerfile is built, without a network, on base images made of Debian's packages;
  * image: it has no shell, is small, runs read-only, without capabilities and as nobody, is soon ready, takes little memory, says by itself whether
    it is healthy, stops as process 1 without losing a call, and has as many threads as its quota has CPUs;
  * rollouts: three front ends behind HAProxy, which follows /readyz and balances TCP; all of them, all replicas and the
    Secret of the certificate are replaced twice under load over HTTP/1.1 and HTTP/2, and no call fails;
  * cut-off: the network between the front ends and one replica's host is cut; only the calls in its hands fail;
  * compose: the example of deploy/compose, with real model servers, by its one command;
  * package: the Debian package is installed on a Debian, and everything is where it says, and systemd runs it as its unit says (the
    package is made beforehand: deploy/debian/package.sh);

Needs root, a running Docker engine, docker-compose, debootstrap, openssl, curl, strip and cargo. With --program the image
under test is made of that program, and `build` only sees whether the Dockerfile can be built, without the optimizations that
take minutes. Base images are kept in target/containers for the next run.
"""

import argparse
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import engine
from compose import compose
from image import build, image
from images import Bases
from package import package
from rollouts import cut_off, rollouts
from support import ROOT, Failed

PARTS = {"build": build, "image": image, "rollouts": rollouts, "cut-off": cut_off, "compose": compose, "package": package}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME")
    parser.add_argument("--program", type=Path, default=None, help="what the image under test is made of")
    arguments = parser.parse_args()
    kept = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "containers"
    kept.mkdir(parents=True, exist_ok=True)
    bases = arguments.bases = Bases(kept)
    arguments.tests = Path(__file__).resolve().parent
    begun = time.monotonic()
    # Others than root look into it.
    arguments.directory = Path(tempfile.mkdtemp(prefix="containers-"))
    arguments.directory.chmod(0o755)
    try:
        arguments.debian = bases.debian()
        tested = bases.of_program(arguments.program) if arguments.program else bases.built()
        print(f"the image is there after {time.monotonic() - begun:.0f} s", flush=True)
        for name in arguments.only:
            with ExitStack() as stack:
                print(f"== {name}", flush=True)
                PARTS[name](arguments, stack, tested)
    except Failed as failure:
        print(f"FAILED   {failure}", flush=True)
        raise SystemExit(1) from None
    finally:
        engine.run("image", "rm", "--force", f"{engine.RUN}:built", f"{engine.RUN}:program")
        shutil.rmtree(arguments.directory, ignore_errors=True)
    print(f"{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
