"""What the programs of this folder stand on: certificates, a model that answers, the front end itself, and HTTP.

Nothing here judges. Everything listens on 127.0.0.1 in a directory that is thrown away, and everything that is started
is stopped by its process id. What has to happen first is waited for, never slept for.
"""

import argparse
import hashlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CNAME = "scoring.example.com"
GROUP, CLUSTER = "my-rg", "my-cluster"
ANSWER = b'[{"class":"setosa","probability":0.9816}]\n'
SAMPLE = b'{"data": [[5.1, 3.5, 1.4, 0.2]]}'
PATIENCE = 30


class Failed(Exception):
    """Something does not hold; the sentence says what."""


def expect(holds, sentence):
    if not holds:
        raise Failed(sentence)


def done(what):
    print(f"ok       {what}", flush=True)


def main(documentation, program, add_arguments=None):
    """Runs `program(arguments, stack)`: exit status 1 and a sentence if something does not hold."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=None, help="default: target/release or target/debug")
    parser.add_argument("--keep", action="store_true", help="leave the directory there in the end, and say where it is")
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    arguments.binary = (arguments.binary or default_binary()).resolve()
    begun = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="management-"))
    try:
        with ExitStack() as stack:
            arguments.directory = directory
            program(arguments, stack)
    except Failed as failure:
        print(f"FAILED   {failure}", flush=True)
        raise SystemExit(1) from None
    finally:
        if arguments.keep:
            print(f"everything is in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{time.monotonic() - begun:.0f} s in all")


def default_binary():
    """The release binary if it was built, else the one that `cargo test` built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for profile in ("release", "debug"):
        if (target / profile / "scorefront").exists():
            return target / profile / "scorefront"
    raise SystemExit("build it first: cargo build")


def wait_until(what, holds, patience=PATIENCE):
    """What `holds` says once it is something; it is asked again and again, because nobody tells when it is."""
    deadline = time.monotonic() + patience
    while not (found := holds()):
        expect(time.monotonic() < deadline, f"waited {patience} s in vain until {what}")
        time.sleep(0.01)
    return found


def free_ports(count):
    """Ports that were free, below those that port 0 becomes."""
    found, port = [], 20_000 + os.getpid() % 8_000
    while len(found) < count:
        port += 1
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        found.append(port)
    return found


# Programs


def run(command, said_to_it=None, timeout=120, **options):
    """What a program said on both its outputs apart, and its exit status."""
    return subprocess.run([str(word) for word in command], input=said_to_it, stdin=None if said_to_it
                          else subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", timeout=timeout, check=False, **options)


def must(command, **options):
    """The standard output of a program that has to succeed."""
    finished = run(command, **options)
    words = " ".join(str(word) for word in command)
    expect(finished.returncode == 0, f"`{words}` exits with {finished.returncode}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def stop(process, number=signal.SIGTERM, patience=20):
    """Ends a program by its process id."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def venv(name, requirements):
    """Programs of the packages that `requirements` pins, kept in the target directory for the next run."""
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / name
    mark = folder / "installed.txt"
    if not mark.exists() or mark.read_bytes() != requirements.read_bytes():
        must([sys.executable, "-m", "venv", "--clear", folder])
        must([folder / "bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile", "-r",
              requirements], timeout=600)
        shutil.copy(requirements, mark)
    return folder / "bin"


# Certificates


@dataclass
class Pair:
    cert: Path
    key: Path

    @property
    def cert_text(self):
        return self.cert.read_text()

    @property
    def key_text(self):
        return self.key.read_text()

    @property
    def serial(self):
        return must(["openssl", "x509", "-in", self.cert, "-noout", "-serial"]).strip().removeprefix("serial=").lower()


class Authority:
    """A CA of the tests' own."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.pem = directory / "ca.pem"
        self.key = directory / "ca.key"
        must(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
              "90",
              "-subj", "/O=scorefront tests/CN=management CA", "-keyout", self.key, "-out", self.pem,
              "-addext", "keyUsage=critical,keyCertSign,cRLSign"])

    def pair(self, file, cname=CNAME):
        pair = Pair(self.directory / f"{file}.pem", self.directory / f"{file}.key")
        must(["openssl", "req", "-x509", "-CA", self.pem, "-CAkey", self.key, "-newkey", "ec", "-pkeyopt",
              "ec_paramgen_curve:prime256v1", "-nodes", "-days", "80", "-subj", f"/CN={cname}", "-keyout", pair.key,
              "-out", pair.cert, "-addext", f"subjectAltName=DNS:{cname}", "-addext",
              "basicConstraints=critical,CA:FALSE",
              "-addext", "extendedKeyUsage=serverAuth", "-addext", "keyUsage=critical,digitalSignature"])
        return pair

    def context(self):
        return ssl.create_default_context(cafile=str(self.pem))


# A model


class Handler(http.server.BaseHTTPRequestHandler):
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


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    # Head and body are two writes.
    disable_nagle_algorithm = True

    def handle_error(self, *_):
        # The front end drops connections that it needs no more.
        pass


Handler.disable_nagle_algorithm = True


def model(stack):
    """The address of a replica that answers everything at once with `ANSWER`."""
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"


# HTTP


@dataclass
class Answer:
    status: int
    fields: dict
    body: bytes
    sent: str = ""

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"{self} is no JSON") from None

    @property
    def code(self):
        """The code of an error, of which every one has one."""
        error = self.json.get("error")
        expect(isinstance(error, dict) and isinstance(error.get("code"), str) and error.get("message"),
               f"{self} is no error")
        return error["code"]

    def __str__(self):
        return f"{self.sent}: {self.status} {self.body[:600].decode(errors='replace').strip()}"


def exchange(connection, method, path, body=None, headers=None):
    """One request and its whole answer, which may come before all of the request was sent."""
    try:
        connection.request(method, path, body, headers or {})
    except (BrokenPipeError, ConnectionResetError):
        if not connection.sock:
            raise
    answer = connection.getresponse()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, fields, answer.read(), f"{method} {path}")


class Admin:
    """Whoever manages a front end: one connection a request, as short programs do."""

    def __init__(self, address, token=None):
        self.address, self.token = address, token

    def send(self, method, path, body=None, headers=None, timeout=60):
        """The answer, whatever it is. `body` is JSON unless it is bytes."""
        host, port = self.address.rsplit(":", 1)
        fields = {"authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            fields["content-type"] = "application/json"
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
        try:
            return exchange(connection, method, path, body, fields | (headers or {}))
        finally:
            connection.close()

    def patiently(self, *arguments, **options):
        """The same; asked again as often as it was too much at once, which is no change."""
        while (answer := self.send(*arguments, **options)).status == 429:
            expect("retry-after" in answer.fields, f"{answer} has no Retry-After")
            time.sleep(0.05)
        return answer

    def ask(self, method, path, body=None, headers=None, status=200):
        """An answer that has to have this status."""
        answer = self.patiently(method, path, body, headers)
        expect(answer.status == status, f"{answer} instead of {status}")
        return answer

    def get(self, path):
        return self.ask("GET", path).json

    def create(self, name, replicas, **settings):
        body = {"name": name, "replicas": replicas, **settings}
        return self.ask("POST", "/v1/services", body, status=202)

    def keys(self, name):
        return self.get(f"/v1/services/{name}/keys")

    def wait_for(self, name):
        """Until a replica of the service has answered."""
        path = f"/v1/services/{name}"
        wait_until(f"service {name} has Succeeded", lambda: self.get(path)["state"] == "Succeeded")


class Caller:
    """Scores over one connection that stays open: https if there is a context of TLS."""

    def __init__(self, port, tls=None, cname=CNAME, timeout=20):
        self.port, self.tls, self.cname, self.timeout = port, tls, cname, timeout
        self.connection = None

    def score(self, service, key=None, cname=None):
        if not self.connection:
            self.connection = http.client.HTTPConnection(self.cname, self.port, timeout=self.timeout)
            # Never a connection of its own accord, to wherever the name leads.
            self.connection.auto_open = 0
            tcp = socket.create_connection(("127.0.0.1", self.port), self.timeout)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection.sock = self.tls.wrap_socket(tcp, server_hostname=self.cname) if self.tls else tcp
        fields = {"content-type": "application/json", "host": cname or self.cname}
        if key:
            fields["authorization"] = f"Bearer {key}"
        try:
            answer = exchange(self.connection, "POST", f"/api/v1/service/{service}/score", SAMPLE, fields)
        except BaseException:
            self.close()
            raise
        if answer.fields.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None


def serial_served(port, tls, cname=CNAME):
    """The serial number of the certificate that a new, verified connection gets: whoever serves it has its key."""
    with socket.create_connection(("127.0.0.1", port), 20) as tcp, \
            tls.wrap_socket(tcp, server_hostname=cname) as connection:
        return connection.getpeercert()["serialNumber"].lower()


# The front end


class FrontEnd:
    """`scorefront serve` on an environment; its log is read as it comes."""

    def __init__(self, stack, binary, environment):
        self.log, self.changed = [], threading.Condition()
        self.environment, self.binary = environment, binary
        # The access log goes nowhere: it is not what is looked at.
        self.process = subprocess.Popen([binary, "serve", "--env", environment], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        stack.callback(stop, self.process)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            with self.changed:
                self.log.append(line)
                self.changed.notify_all()
        with self.changed:
            self.log.append(None)
            self.changed.notify_all()

    def event(self, text, patience=PATIENCE):
        """The first line of the log that holds `text`, as soon as it is written."""
        seen, deadline = 0, time.monotonic() + patience
        with self.changed:
            while True:
                for line in self.log[seen:]:
                    expect(line is not None, f"the front end ended before it said {text!r}:\n{self.said()}")
                    if text in line:
                        return json.loads(line)
                seen = len(self.log)
                left = deadline - time.monotonic()
                expect(left > 0, f"the front end did not say {text!r} within {patience} s:\n{self.said()}")
                self.changed.wait(left)

    def said(self):
        return "".join(line for line in self.log if line)

    def wait_until_serving(self):
        serving = self.event('"serving"')
        self.admin_address = serving["admin"].removeprefix("http://")
        self.https = int(serving["https"].rsplit(":", 1)[1])
        self.http = int(serving["http"].rsplit(":", 1)[1]) if serving.get("http") else None
        return self

    def admin(self, token=None):
        return Admin(self.admin_address, token)

    def expect_running(self):
        expect(self.process.poll() is None, f"the front end ended by itself:\n{self.said()}")

    def kill(self):
        """As when the machine runs out of memory."""
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def stop(self):
        """What it was told to do, and its whole log."""
        status = stop(self.process)
        self.reader.join()
        expect(status == 0, f"the front end exits with {status} when it is asked to stop:\n{self.said()}")
        return self.said()


def serve(stack, binary, environment):
    return FrontEnd(stack, binary, environment).wait_until_serving()


def write_environment(directory, authority=None, pair=None, more="", admin="", tls="Enabled", grace="0s"):
    """A directory as `scorefront env create -c` makes it, on free ports."""
    for folder in ("services", "keys"):
        (directory / folder).mkdir(parents=True)
    (directory / "keys").chmod(0o700)
    (directory / "scorefront.toml").write_text(
        f'include = ["services/*.toml"]\n\n[environment]\nname = "{CLUSTER}"\nresource_group = "{GROUP}"\n'
        'cluster_type = "ACS"\ncreated_on = 2026-11-26T21:00:00Z\n\n'
        f'[frontend]\nhttps = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\ndrain_grace = "{grace}"\ndrain_timeout = "2s"\n\n'
        f'[tls]\nstatus = "{tls}"\n\n[admin]\nlisten = "127.0.0.1:0"\n{admin}\n[log]\nformat = "json"\n{more}'
        + (f'\n[[cname]]\nname = "{CNAME}"\ncert_pem = "certs/{CNAME}/cert.pem"\nkey_pem = "certs/{CNAME}/key.pem"\n'
           if pair else ""))
    if pair:
        folder = directory / "certs" / CNAME
        folder.mkdir(parents=True)
        shutil.copy(pair.cert, folder / "cert.pem")
        shutil.copy(pair.key, folder / "key.pem")
        (folder / "key.pem").chmod(0o600)
    return directory


def files_of(directory):
    """What the environment holds: each file's path, and its content's digest. The lock is empty and says nothing."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != ".lock":
            found[str(path.relative_to(directory))] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def replace(path, text):
    """As editors and deployment tools write a file: beside its place, then renamed."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.rename(path)


def check(binary, environment):
    """`scorefront check` has no errors to say."""
    finished = run([binary, "check", "--env", environment])
    expect(finished.returncode == 0, f"scorefront check --env says:\n{finished.stdout}{finished.stderr}")


# Load


@dataclass
class Load:
    """Threads that score without a pause until they are stopped, and what became of every call."""

    threads: list = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    # (when it was sent, when it was over, what kind of call, status or error)
    calls: list = field(default_factory=list)

    def start(self, kind, count, call):
        """`count` threads that do `call(number)`, which gives a status."""
        def loop(number):
            while not self.stopped.is_set():
                sent = time.monotonic()
                try:
                    outcome = call(number)
                except (OSError, http.client.HTTPException, Failed) as error:
                    outcome = f"{type(error).__name__}: {error}"
                    time.sleep(0.02)
                self.calls.append((sent, time.monotonic(), kind, outcome))

        for number in range(count):
            thread = threading.Thread(target=loop, args=(number,), daemon=True)
            thread.start()
            self.threads.append(thread)
        return self

    def reach(self, count, kind=None):
        """Waits until so many more calls were answered."""
        already = self.count(kind)
        wait_until(f"{count} more calls were answered", lambda: self.count(kind) >= already + count)

    def count(self, kind=None):
        return sum(kind in (None, call[2]) for call in list(self.calls))

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
        return self.calls
