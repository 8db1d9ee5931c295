"""The pairs of key and certificate that all proxies share: one by ECDSA P-256, one by RSA 2048."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "rsa": ["-newkey", "rsa:2048"],
}


@dataclass
class Pair:
    cert: Path
    key: Path
    # Both in one file, as HAProxy has it.
    both: Path


def make(work, kind):
    """A certificate that is its own authority, for `localhost` and any one label under `bench.example`."""
    pair = Pair(*(work / f"{kind}.{name}.pem" for name in ("cert", "key", "both")))
    (work / "openssl.cnf").write_text(
        "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n"
        "subjectAltName = DNS:localhost, DNS:*.bench.example\nbasicConstraints = critical,CA:FALSE\n")
    subprocess.run(
        ["openssl", "req", "-x509", *KINDS[kind], "-nodes", "-days", "90", "-subj", "/CN=localhost", "-config",
         work / "openssl.cnf", "-keyout", pair.key, "-out", pair.cert],
        check=True, capture_output=True, timeout=60)
    pair.both.write_text(pair.cert.read_text() + pair.key.read_text())
    return pair
