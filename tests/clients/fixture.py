"""What the clients and the scanners connect to: a CA, certificates, a replica, and the front end that serves them.

Nothing here judges. Everything listens on 127.0.0.1, and everything that is started is stopped by its process id.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CNAME = "scoring.example.com"
OTHER_CNAME = "other.example.com"
UNKNOWN_CNAME = "elsewhere.example.com"
SCORE = "/api/v1/service/iris/score"
ANSWER = b'{"class":"setosa"}'
CI = os.environ.get("CI") == "true"


class Missing(Exception):
    """A tool that is not on this machine, so that its test cannot run."""


def need(program, package):
    """The path of a program. As root under CI it is installed if it is not there; otherwise its test is skipped."""
    found = shutil.which(program)
    if not found and CI and os.geteuid() == 0:
        apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0"]
        for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", package]):
            subprocess.run(command, check=False, timeout=600, stdout=subprocess.DEVNULL,
                           env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        found = shutil.which(program)
    if not found:
        raise Missing(f"there is no {program} on this machine (Debian package {package})")
    return found


class Results:
    """What passed, failed and was skipped, in words; under CI a skip is a failure."""

    def __init__(self):
        self.failures = 0

    def check(self, what, ask):
        try:
            remark = ask()
            print(f"ok       {what}{': ' + remark if remark else ''}", flush=True)
        except Missing as missing:
            self.failures += CI
            print(f"\n!!! SKIPPED {what}: {missing}\n", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            self.failures += 1
            print(f"FAILED   {what}: {error}", flush=True)


@dataclass
class Target:
    """Something that ends TLS for `CNAME` and `OTHER_CNAME`."""

    port: int
    directory: Path
    admin: str = ""

    @property
    def ca(self):
        return self.directory / "ca.pem"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def write_certificates(directory):
    """A CA, an ECDSA and an RSA pair for `CNAME`, and an ECDSA pair for `OTHER_CNAME`."""
    ecdsa, rsa = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], ["rsa:2048"]
    openssl("req", "-x509", "-newkey", *ecdsa, "-nodes", "-days", "90", "-subj", "/O=scorefront tests/CN=clients CA",
            "-keyout", directory / "ca.key", "-out", directory / "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name, file, key in ((CNAME, "ecdsa", ecdsa), (CNAME, "rsa", rsa), (OTHER_CNAME, "other", ecdsa)):
        openssl("req", "-x509", "-CA", directory / "ca.pem", "-CAkey", directory / "ca.key", "-newkey", *key, "-nodes",
                "-days", "90", "-subj", f"/CN={name}", "-keyout", directory / f"{file}.key",
                "-out", directory / f"{file}.pem", "-addext", f"subjectAltName=DNS:{name}",
                "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth",
                "-addext", "keyUsage=critical,digitalSignature")


class Replica(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextmanager
def replica():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica) as server:
        server.daemon_threads = True
        # The front end drops connections whose caller has left.
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def process(command, **options):
    started = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def iris(replica_port):
    return f'[[service]]\nname = "iris"\nauth = false\nreplicas = ["http://127.0.0.1:{replica_port}"]\n'


@contextmanager
def front_end(binary, directory, services):
    """scorefront as it comes, with services in TOML: nothing about TLS is set but the certificates."""
    tables = "".join(
        f'[[cname]]\nname = "{name}"\ncert_pem = "{file}.pem"\nkey_pem = "{file}.key"\n'
        for name, file in ((CNAME, "ecdsa"), (CNAME, "rsa"), (OTHER_CNAME, "other")))
    (directory / "scorefront.toml").write_text(
        '[frontend]\nhttps = "127.0.0.1:0"\ndrain_grace = "0s"\ndrain_timeout = "1s"\n'
        '[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\naccess = false\n' + tables + services)
    events = directory / "events.log"
    with open(events, "wb") as log, \
            process([binary, "serve", "--config", directory / "scorefront.toml"], stderr=log) as started:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and started.poll() is None:
            for line in events.read_text().splitlines():
                if '"serving"' in line:
                    serving = json.loads(line)
                    port = int(serving["https"].rsplit(":", 1)[1])
                    yield Target(port, directory, serving["admin"])
                    if started.poll() is not None:
                        raise SystemExit(f"the front end ended by itself:\n{events.read_text()}")
                    return
            time.sleep(0.02)
        raise SystemExit(f"{binary} does not serve:\n{events.read_text()}")


@contextmanager
def weak_nginx(directory):
    """What scanners have to complain about: TLS 1.0 and 1.1, and ciphers without forward secrecy or worse."""
    nginx = need("nginx", "nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; error_log stderr; pid {directory}/nginx.pid;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl; server_name {CNAME};\n"
        f"ssl_certificate {directory}/rsa.pem; ssl_certificate_key {directory}/rsa.key;\n"
        "ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ALL:COMPLEMENTOFALL:@SECLEVEL=0;\n"
        "ssl_prefer_server_ciphers off; location / { return 200 'weak'; } } }\n")
    with process([nginx, "-p", directory, "-c", directory / "nginx.conf"], stderr=subprocess.DEVNULL):
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit("nginx does not listen") from None
                time.sleep(0.02)
        yield Target(port, directory)


def default_binary():
    """The release binary if it was built, else the one that `cargo test` built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for profile in ("release", "debug"):
        if (target / profile / "scorefront").exists():
            return target / profile / "scorefront"
    print("build it first: cargo build", file=sys.stderr)
    raise SystemExit(2)
