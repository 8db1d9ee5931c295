#!/usr/bin/env python3
"""What 10,000 CNAMEs cost beside one: start, memory, idling, a handshake, and a change of one certificate.

    cargo build --release && python3 benches/rotation/cnames.py [--count 10000] [--rounds 7] [--handshakes 2000]

Needs taskset and the Python package cryptography (Debian: util-linux python3-cryptography), and strace to count the
files that are read when one pair changes. Each CNAME has a key and a certificate of its own, ECDSA P-256, in a
directory of its own, as `certs/<CNAME>/{cert,key}.pem`. Both front ends run at the same time on one CPU, callers
are on another and go to them in turn; what is read is the CPU time of all threads of each from /proc (in nanoseconds).
Handshakes are full ones, of TLS 1.3, under names taken at random; that they were full is read from the front end's own
counters. The callers' side of a connection is no part of the figure, TCP's own work in the front end is.

Exit status 1 if a change is not served within two seconds or makes more than ten certificate files be read, or if a
handshake with many CNAMEs costs more CPU than with one by more than the tolerance.
"""

import argparse
import datetime
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import support

SERVED_WITHIN = 2.0
FILES_READ = 10


def name_of(number):
    return f"n{number:05}.models.example.com"


class Authority:
    """A CA that makes a pair for a name in a fraction of a millisecond."""

    def __init__(self):
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise SystemExit("the Python package cryptography is not here (Debian: python3-cryptography)") from None
        self.x509, self.hashes, self.serialization, self.ec = x509, hashes, serialization, ec
        self.now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cnames CA")])
        self.key = ec.generate_private_key(ec.SECP256R1())
        signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = self.sign(self.name, self.key, 1, [(x509.BasicConstraints(True, 0), True), (signs, True)])
        self.last = 1

    def sign(self, subject, key, serial, extensions):
        builder = (self.x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
                   .public_key(key.public_key()).serial_number(serial)
                   .not_valid_before(self.now - datetime.timedelta(hours=1))
                   .not_valid_after(self.now + datetime.timedelta(days=2)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, self.hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(self.serialization.Encoding.PEM)

    def pair(self, name):
        """Serial number, certificate, key."""
        self.last += 1
        key = self.ec.generate_private_key(self.ec.SECP256R1())
        subject = self.x509.Name([self.x509.NameAttribute(self.x509.NameOID.COMMON_NAME, name)])
        certificate = self.sign(subject, key, self.last, [
            (self.x509.SubjectAlternativeName([self.x509.DNSName(name)]), False),
            (self.x509.BasicConstraints(False, None), True)])
        encoding, private = self.serialization.Encoding.PEM, self.serialization.PrivateFormat.PKCS8
        return (self.last, certificate.public_bytes(encoding),
                key.private_bytes(encoding, private, self.serialization.NoEncryption()))


def write_environment(work, authority, count):
    """A configuration with `count` CNAMEs, written once."""
    tables = []
    for number in range(count):
        name = name_of(number)
        directory = work / "certs" / name
        directory.mkdir(parents=True)
        _, certificate, key = authority.pair(name)
        (directory / "cert.pem").write_bytes(certificate)
        (directory / "key.pem").write_bytes(key)
        tables.append(f'[[cname]]\nname = "{name}"\n'
                      f'cert_pem = "certs/{name}/cert.pem"\nkey_pem = "certs/{name}/key.pem"\n')
    (work / "tables").write_text("".join(tables))


class FrontEnd:
    def __init__(self, stack, arguments, work, count):
        self.count, self.work = count, work
        self.port, self.admin = support.free_port(), f"127.0.0.1:{support.free_port()}"
        config = work / "scorefront.toml"
        config.write_text(
            f'[frontend]\nhttps = "127.0.0.1:{self.port}"\nthreads = 1\ndrain_grace = "0s"\ndrain_timeout = "1s"\n'
            f'[admin]\nlisten = "{self.admin}"\n[log]\nformat = "json"\n'
            + (work / "tables").read_text()
            + '[[service]]\nname = "iris"\nauth = false\nreplicas = ["http://127.0.0.1:9"]\n')
        events = stack.enter_context(open(work / "events.log", "wb"))
        begin = time.monotonic()
        command = [arguments.binary, "serve", "--config", config]
        self.process = support.start(stack, command, support.SERVER_CPU, errors=events)
        while time.monotonic() - begin < 120 and self.process.poll() is None:
            try:
                if support.admin(self.admin, "/readyz")[0] == 200:
                    self.start_seconds = time.monotonic() - begin
                    break
            except OSError:
                time.sleep(0.002)
        else:
            raise SystemExit(f"it does not start:\n{(work / 'events.log').read_text()[-2000:]}")

    def memory(self):
        """Resident, in KiB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def cpu(self):
        """Seconds that all threads together were on a CPU."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def handshakes(self):
        text = support.admin(self.admin, "/metrics")[1]
        found = re.findall(r'scorefront_tls_handshakes_total\{[^}]*outcome="full"[^}]*\} (\d+)', text)
        return sum(map(int, found))


def measure_handshakes(front_ends, context, count, names):
    """CPU seconds of each front end for one full handshake, connection and close included; they take turns."""
    counted, before = [each.handshakes() for each in front_ends], [each.cpu() for each in front_ends]
    for _ in range(count):
        for each in front_ends:
            support.connect(context, name_of(names.randrange(each.count)), each.port).close()
    time.sleep(0.05)
    costs = [(each.cpu() - cpu) / count for each, cpu in zip(front_ends, before)]
    for each, earlier in zip(front_ends, counted):
        if each.handshakes() - earlier != count:
            raise SystemExit(f"{each.handshakes() - earlier} full handshakes are counted, not {count}")
    return costs


def replace(file, content):
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    new.rename(file)


def change(front_end, authority, context, number):
    """Writes a new pair for a CNAME; seconds until a handshake got it, or None."""
    name = name_of(number)
    serial, certificate, key = authority.pair(name)
    replace(front_end.work / "certs" / name / "cert.pem", certificate)
    replace(front_end.work / "certs" / name / "key.pem", key)
    begin = time.monotonic()
    while time.monotonic() - begin < SERVED_WITHIN + 1:
        with support.connect(context, name, front_end.port) as connection:
            if support.serial_of(connection) == serial:
                return time.monotonic() - begin
        time.sleep(0.002)
    return None


def files_read(front_end, authority, context, number):
    """The certificate files that the front end opens upon a change of one pair, or None without strace."""
    if not shutil.which("strace"):
        return None
    trace = front_end.work / "trace"
    with ExitStack() as stack:
        strace = support.start(stack, ["strace", "-f", "-qq", "-e", "trace=openat,openat2", "-o", trace,
                                       "-p", front_end.process.pid])
        status = Path(f"/proc/{front_end.process.pid}/status")
        deadline = time.monotonic() + 10
        while "TracerPid:\t0\n" in status.read_text():
            if strace.poll() is not None or time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        change(front_end, authority, context, number)
        time.sleep(3)
    return len(set(re.findall(r'"([^"]*certs/[^"]*\.pem)"', trace.read_text())))


def milliseconds(seconds):
    return "never" if seconds is None else f"{1000 * seconds:.0f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--handshakes", type=int, default=2_000, help="in a round (default: 2000)")
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--idle", type=int, default=20, metavar="SECONDS", help="default: 20")
    parser.add_argument("--tolerance", type=float, default=0.10, metavar="SHARE",
                        help="of CPU a handshake (default: 0.10)")
    parser.add_argument("--binary", type=Path, default=support.default_binary())
    arguments = parser.parse_args()

    os.sched_setaffinity(0, {support.LOAD_CPU})
    authority, names, bad = Authority(), random.Random(1), []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        directory = Path(directory)
        (directory / "ca.pem").write_bytes(authority.pem())
        context = support.caller_context(directory / "ca.pem")
        counts = (1, arguments.count)
        for count in counts:
            write_environment(directory / str(count), authority, count)
        starts = {count: [] for count in counts}
        for _ in range(2):
            for count in counts:
                with ExitStack() as short:
                    starts[count].append(FrontEnd(short, arguments, directory / str(count), count).start_seconds)
        one, many = (FrontEnd(stack, arguments, directory / str(count), count) for count in counts)
        for front_end in (one, many):
            starts[front_end.count].append(front_end.start_seconds)
        print(f"CNAMEs                                 {1:12} {arguments.count:12}")

        def line(what, unit, first, second, remark=""):
            print(f"{what:38} {first:12.1f} {second:12.1f} {unit}{remark}", flush=True)

        line("start to /readyz (median of 3)", "ms", *(1000 * statistics.median(starts[count]) for count in counts))
        each = (many.memory() - one.memory()) / (arguments.count - 1)
        line("resident memory", "MiB", one.memory() / 1024, many.memory() / 1024, f": {each:.2f} KiB a certificate")

        before = [front_end.cpu() for front_end in (one, many)]
        time.sleep(arguments.idle)
        line("CPU while idle", "ms a second", *(1000 * (front_end.cpu() - cpu) / arguments.idle
                                                for front_end, cpu in zip((one, many), before)))

        measure_handshakes((one, many), context, arguments.handshakes // 4, names)
        rounds = [measure_handshakes((one, many), context, arguments.handshakes, names) for _ in range(arguments.rounds)]
        ratios = [second / first for first, second in rounds]
        ratio = statistics.median(ratios)
        line("CPU of a full handshake", "µs", *(1e6 * statistics.median(column) for column in zip(*rounds)),
             f": {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        if ratio > 1 + arguments.tolerance:
            bad.append(f"a handshake costs {ratio - 1:+.0%}")

        for front_end in (one, many):
            begin = time.monotonic()
            status, _ = support.admin(front_end.admin, "/v1/reload", "POST", 60)
            print(f"POST /v1/reload, nothing changed, {front_end.count} CNAMEs: {status} after"
                  f" {milliseconds(time.monotonic() - begin)}", flush=True)
            lags = []
            for _ in range(arguments.changes):
                lags.append(change(front_end, authority, context, names.randrange(front_end.count)))
                if lags[-1] is None or lags[-1] > SERVED_WITHIN:
                    bad.append(f"a change among {front_end.count} is served after {milliseconds(lags[-1])}")
                    break
            middle = None if None in lags else statistics.median(lags)
            longest = None if None in lags else max(lags)
            print(f"a changed pair is served, {front_end.count} CNAMEs: after {milliseconds(middle)} (median),"
                  f" {milliseconds(longest)} (longest of {len(lags)})", flush=True)
        line("resident memory after that", "MiB", one.memory() / 1024, many.memory() / 1024)
        read = files_read(many, authority, context, names.randrange(many.count))
        print("certificate files read upon one change:", "unknown, strace does not work here" if read is None else read)
        if read is not None and read > FILES_READ:
            bad.append(f"{read} files are read when one pair changes")
    print(f"FAILED: {'; '.join(bad)}" if bad else "ok")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
