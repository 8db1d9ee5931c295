#!/usr/bin/env python3
"""Rotates the certificate every second under load, and looks whether any caller can tell.

    cargo build --release && python3 benches/rotation/rotate.py --all

Needs nginx, h2load, openssl and taskset (Debian: nginx-light nghttp2-client openssl util-linux). The front end has one
CPU, everything else another. A pair is written in one of four ways:

    rename    each of the two files is replaced by rename, now the certificate first, now the key, 20 ms apart
    in-place  each is truncated and written in two parts, with pauses, so that half-written pairs stand there
    secret    as a Kubernetes Secret volume: a new directory, and `..data` turned to it
    reload    both are replaced by rename, then POST /v1/reload: from its answer on only the new one may be served

Meanwhile h2load calls over kept connections of HTTP/1.1 and HTTP/2; two callers open new connections all the time,
verify them and check that the certificate is one that was current within the last two seconds; and one caller holds a
connection open and resumes, over TLS 1.2 and 1.3, sessions from before the first rotation. Stretches with and without
rotation alternate in one run (A B B A ...), so that both see the same connections and the same machine; a latency is
the median over the stretches of one kind, and beside it stands the probability that the difference is chance.

Exit status 1 if any call or handshake failed, any connection or session was lost, any certificate was stale, half of
the rotations took longer than 500 ms to be seen, or a 99th percentile is worse under rotation by more than the
tolerance and not by chance (less than 1 %). `--peer nginx` does the same to nginx, which is sent SIGHUP after each
write.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import support

NAME = "scoring.example.com"
WAYS = ("rename", "in-place", "secret", "reload")
STALE_AFTER = 2.0
SEEN_WITHIN = 0.5
FIRST_SERIAL = 0x1000


# The certificates, and how they are put where the front end reads them.

def write_pairs(directory, count):
    """One CA and `count` pairs of ECDSA P-256; the serial numbers count up."""
    def request(*arguments):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        subprocess.run(["openssl", "req", "-x509", *curve, "-nodes", "-days", "2", *map(str, arguments)],
                       check=True, capture_output=True, timeout=60)

    ca, key = directory / "ca.pem", directory / "ca.key"
    request("-subj", "/CN=rotation CA", "-keyout", key, "-out", ca)
    for number in range(count):
        request("-CA", ca, "-CAkey", key, "-set_serial", FIRST_SERIAL + number, "-subj", f"/CN={NAME}",
                "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE",
                "-keyout", directory / f"{number}.key", "-out", directory / f"{number}.pem")
    return [((directory / f"{n}.pem").read_bytes(), (directory / f"{n}.key").read_bytes()) for n in range(count)]


def replace(file, content):
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    new.rename(file)


def write_in_parts(file, content):
    with open(file, "wb", buffering=0) as opened:
        opened.write(content[:len(content) // 2])
        time.sleep(0.01)
        opened.write(content[len(content) // 2:])


class Pair:
    """The two files that the configuration names, and the way they are written."""

    def __init__(self, directory, way):
        self.directory, self.way = directory, way
        directory.mkdir()
        names = ("tls.crt", "tls.key") if way == "secret" else ("cert.pem", "key.pem")
        self.cert, self.key = (directory / name for name in names)

    def first(self, pair):
        if self.way == "secret":
            self.swap(0, pair)
            for file in (self.cert, self.key):
                file.symlink_to(Path("..data") / file.name)
        else:
            replace(self.cert, pair[0])
            replace(self.key, pair[1])

    def write(self, number, pair):
        files = list(zip((self.cert, self.key), pair))
        if number % 2:
            files.reverse()
        if self.way == "secret":
            self.swap(number, pair)
        elif self.way == "in-place":
            for file, content in files:
                write_in_parts(file, content)
                time.sleep(0.02)
        else:
            for file, content in files:
                replace(file, content)
                if self.way == "rename":
                    time.sleep(0.02)

    def swap(self, number, pair):
        """What kubelet does: files in a new directory, `..data` renamed over, the old directory removed."""
        data, new = self.directory / "..data", self.directory / f"..{number}"
        new.mkdir()
        (new / self.cert.name).write_bytes(pair[0])
        (new / self.key.name).write_bytes(pair[1])
        link = self.directory / "..data_tmp"
        link.symlink_to(new.name)
        old = os.readlink(data) if data.is_symlink() else None
        link.rename(data)
        if old:
            for file in (self.directory / old).iterdir():
                file.unlink()
            (self.directory / old).rmdir()


# The servers.

def start_scorefront(stack, arguments, work, pair, replica_port):
    port, admin = support.free_port(), f"127.0.0.1:{support.free_port()}"
    (work / "scorefront.toml").write_text(
        f'[frontend]\nhttps = "127.0.0.1:{port}"\nthreads = 1\ndrain_grace = "0s"\ndrain_timeout = "1s"\n'
        f'[admin]\nlisten = "{admin}"\n[log]\nformat = "json"\n'
        f'[[cname]]\nname = "{NAME}"\ncert_pem = "{pair.cert}"\nkey_pem = "{pair.key}"\n'
        f'[[service]]\nname = "iris"\nauth = false\nreplicas = ["http://127.0.0.1:{replica_port}"]\n')
    events = stack.enter_context(open(work / "events.log", "wb"))
    command = [arguments.binary, "serve", "--config", work / "scorefront.toml"]
    process = support.start(stack, command, support.SERVER_CPU, errors=events)
    return process, port, admin


def start_nginx(stack, work, pair, replica_port):
    port = support.free_port()
    (work / "peer.conf").write_text(
        f"worker_processes 1; daemon off; error_log {work}/events.log; pid {work}/peer.pid;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000000; ssl_session_cache shared:sessions:1m;\n"
        f"upstream replica {{ server 127.0.0.1:{replica_port}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} ssl http2; server_name {NAME}; ssl_protocols TLSv1.2 TLSv1.3;\n"
        f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};\n"
        f"location {support.PATH} {{ proxy_pass http://replica/score; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; } } }\n')
    process = support.start(stack, ["nginx", "-p", work, "-c", work / "peer.conf"], support.SERVER_CPU)
    return process, port


# The callers: each in a process of its own, so that none waits for another.

def fresh_caller(ca, port, protocol, rate, until, report):
    """New connections at a rate; for each: begin, end of the handshake, end of the call, serial, what failed how."""
    os.nice(10)  # The latency of kept connections is measured on the same CPU.
    context = support.caller_context(ca, protocol)
    seen, due = [], time.time()
    while time.time() < until:
        begin, shaken, serial = time.time(), None, None
        try:
            with support.connect(context, NAME, port) as connection:
                shaken, serial = time.time(), support.serial_of(connection)
                if connection.selected_alpn_protocol() != protocol:
                    raise support.Broken(f"ALPN chose {connection.selected_alpn_protocol()}")
                status = (support.call_http2(connection, NAME) if protocol == "h2"
                          else support.call_http1(connection, NAME, close=True))
                if status != 200:
                    raise support.Broken(f"status {status}")
            failed = None
        except (OSError, support.Broken, ValueError, KeyError) as error:
            failed = ["call" if shaken else "handshake", f"{type(error).__name__}: {error}"]
        seen.append([begin, shaken, time.time(), serial, failed])
        due = max(due + 1 / rate, time.time() - 0.1)
        time.sleep(max(0, due - time.time()))
    report.write_text(json.dumps(seen))


def faithful_caller(ca, port, until, report):
    """Holds one connection, and resumes the first session of each version of TLS again and again."""
    os.nice(10)
    versions = {version.name: support.caller_context(ca, version=version)
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)}
    sessions, held = {}, None
    counts = {"held_calls": 0, "held_lost": 0, "resumptions": 0, "resumptions_lost": 0, "errors": []}
    while time.time() < until:
        try:
            held = held or support.connect(support.caller_context(ca), NAME, port)
            counts["held_calls"] += 1
            if support.call_http1(held, NAME) != 200:
                raise support.Broken("not 200")
        except (OSError, support.Broken, ValueError, KeyError) as error:
            counts["held_lost"] += 1
            counts["errors"].append(f"held connection: {type(error).__name__}: {error}")
            held = None
        for version, context in versions.items():
            session = sessions.get(version)
            try:
                with support.connect(context, NAME, port, session) as connection:
                    support.call_http1(connection, NAME, close=True)
                    if session is None:
                        sessions[version] = connection.session
                    else:
                        counts["resumptions"] += 1
                        counts["resumptions_lost"] += not connection.session_reused
            except (OSError, support.Broken, ValueError, KeyError) as error:
                counts["resumptions_lost"] += 1
                counts["errors"].append(f"resumption over {version}: {type(error).__name__}: {error}")
        time.sleep(0.2)
    report.write_text(json.dumps(counts))


def start_h2load(stack, work, protocol, port, seconds, rate):
    """Kept connections at a bounded rate; h2load notes the time and the latency of each call."""
    body = work / "body.json"
    body.write_bytes(support.BODY)
    shape = {"h1": ["--h1", "-c8"], "h2": ["-c8", "-m4"]}[protocol]
    log, output = work / f"{protocol}.log", open(work / f"{protocol}.out", "wb")
    process = support.start(stack, [
        "h2load", "-t1", *shape, f"--rps={max(1, round(rate / 8))}", f"-D{seconds}", f"--log-file={log}", "-d", body,
        "-H", "Content-Type: application/json", f"--connect-to=127.0.0.1:{port}",
        f"https://{NAME}:{port}{support.PATH}"],
        output=output, errors=subprocess.STDOUT)
    return process, log, work / f"{protocol}.out"


def read_h2load(log, output):
    """The calls as (begin, seconds), and how many failed."""
    calls, failed = [], 0
    for line in log.read_text().splitlines():
        begin, status, microseconds = map(int, line.split("\t"))
        failed += status != 200
        calls.append((begin / 1e6, microseconds / 1e6))
    text = output.read_text()
    counts = re.search(r"requests: .* (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not calls or not counts:
        raise SystemExit(f"h2load called nobody:\n{text}")
    return calls, max(failed, sum(map(int, counts.groups())))


# One run, and what is made of it.

def stretches(seconds, length):
    """When (from the start) and whether certificates are rotated: A B B A A B …, `seconds` of each kind."""
    count = max(1, round(seconds / length))
    kinds = [(number + 1) // 2 % 2 == 1 for number in range(2 * count)]
    return [(number * length, (number + 1) * length, rotating) for number, rotating in enumerate(kinds)]


def rotate(plan, begin, pair, pairs, arguments, server, admin):
    """Writes pair after pair; for each: begin and end of the write, and from when the one before is stale."""
    written, complaints = [], []
    moments = [start + second + 0.25 for start, end, rotating in plan if rotating for second in range(int(end - start))]
    for number, moment in enumerate(moments, 1):
        time.sleep(max(0, begin + moment - time.time()))
        started = time.time()
        pair.write(number, pairs[number])
        ended = time.time()
        stale_from = ended + STALE_AFTER
        if arguments.peer == "nginx":
            server.send_signal(signal.SIGHUP)
        elif pair.way == "reload":
            try:
                status, answer = support.admin(admin, "/v1/reload", "POST", 5)
            except OSError as error:
                status, answer = 0, str(error)
            certificates = answer.get("certificates", []) if isinstance(answer, dict) else []
            results = [certificate.get("result") for certificate in certificates]
            # The front end may have seen the files before it was told to look.
            if status != 200 or not results or any(result not in ("taken", "unchanged") for result in results):
                complaints.append(f"POST /v1/reload answered {status} {str(answer)[:200]}")
            stale_from = time.time()
        written.append((started, ended, stale_from))
        if server.poll() is not None:
            raise SystemExit(f"the server ended by itself with {server.returncode}")
    return written, complaints


def run(way, arguments, work, pairs):
    plan = stretches(arguments.seconds, min(arguments.stretch, arguments.seconds))
    with ExitStack() as stack:
        pair = Pair(work / "certs", way)
        pair.first(pairs[0])
        replica_port, admin = support.free_port(), None
        replica = support.start(stack, ["nginx", "-p", work, "-c", support.replica_config(work, replica_port)])
        support.wait_for(replica_port, replica)
        if arguments.peer == "nginx":
            server, port = start_nginx(stack, work, pair, replica_port)
        else:
            server, port, admin = start_scorefront(stack, arguments, work, pair, replica_port)
        support.wait_for(port, server)

        begin = time.time() + 1
        length = plan[-1][1]
        until, ca = begin + length, work.parent / "ca.pem"
        loads = {protocol: start_h2load(stack, work, protocol, port, int(length + 2), arguments.rate)
                 for protocol in ("h1", "h2")}
        callers = [multiprocessing.Process(target=fresh_caller, args=(ca, port, alpn, arguments.handshakes / 2, until,
                                                                      work / f"fresh-{file}.json"))
                   for file, alpn in (("h1", "http/1.1"), ("h2", "h2"))]
        callers.append(multiprocessing.Process(target=faithful_caller, args=(ca, port, until, work / "faithful.json")))
        for caller in callers:
            caller.start()
            stack.callback(lambda caller=caller: (caller.kill(), caller.join()))
        written, complaints = rotate(plan, begin, pair, pairs, arguments, server, admin)
        for caller in callers:
            caller.join(length + 30)
            if caller.exitcode != 0:
                raise SystemExit(f"a caller ended with {caller.exitcode}")
        for process, _, _ in loads.values():
            process.wait(30)
        if admin:
            complaints += what_the_admin_listener_lacks(admin, len(written))
    return judge(plan, begin, written, complaints, arguments, work, loads)


def what_the_admin_listener_lacks(admin, last):
    """GET /v1/certificates has to name the certificate that was written last, and nothing refused since."""
    status, answer = support.admin(admin, "/v1/certificates")
    if status != 200 or not isinstance(answer, dict):
        return [f"GET /v1/certificates answered {status}"]
    table = answer["certificates"][0]
    wrong = []
    if int(table["serial"].replace(":", ""), 16) != FIRST_SERIAL + last:
        wrong.append(f"GET /v1/certificates names serial {table['serial']}, not {FIRST_SERIAL + last:x}")
    if table["last_reload_ok"] is not True:
        wrong.append(f"GET /v1/certificates: the last reload failed: {table.get('error')}")
    return wrong


def kind_of(plan, begin, moment):
    """The stretch that a moment is in."""
    number = int((moment - begin) // plan[0][1])
    return number if 0 <= number < len(plan) else None


def latency(plan, begin, calls):
    """Medians over the stretches of p50 and p99, in seconds: without rotation, with it; and what the latter is worth.

    That is the probability that p99 is as much worse with rotation by chance alone: the share of all ways to swap the
    two neighbouring stretches of some pairs, one of each kind, in which it comes out as bad.
    """
    by_stretch = [[] for _ in plan]
    for moment, seconds in calls:
        number = kind_of(plan, begin, moment)
        if number is not None:
            by_stretch[number].append(seconds)
    if not all(by_stretch):
        return {kind: [float("nan")] * 2 for kind in (False, True)} | {"chance": 1.0}
    stretch = {share: [support.percentile(calls, share) for calls in by_stretch] for share in (0.5, 0.99)}
    figures = {kind: [statistics.median(figure for figure, (*_, rotating) in zip(stretch[share], plan)
                                        if rotating == kind)
                      for share in (0.5, 0.99)] for kind in (False, True)}
    pairs = [sorted(zip(stretch[0.99][at:at + 2], plan[at:at + 2]), key=lambda each: each[1][2])
             for at in range(0, len(plan), 2)]
    pairs = [(without, rotating) for (without, _), (rotating, _) in pairs]
    seen, draw = figures[True][1] / figures[False][1], random.Random(1)
    swaps = ([each[::draw.choice((1, -1))] for each in pairs] for _ in range(2000))
    columns = (list(zip(*swapped)) for swapped in swaps)
    figures["chance"] = sum(statistics.median(b) / statistics.median(a) >= seen for a, b in columns) / 2000
    return figures


def judge(plan, begin, written, complaints, arguments, work, loads):
    fresh = [each for file in ("h1", "h2") for each in json.loads((work / f"fresh-{file}.json").read_text())]
    faithful = json.loads((work / "faithful.json").read_text())
    latencies, counts = {}, {"calls": 0, "failed calls": 0, "calls that kept connections lacked": 0}
    for protocol, (_, log, output) in loads.items():
        calls, failed = read_h2load(log, output)
        # h2load gives up a connection that was closed, without a word: the rate falls.
        wanted = 8 * max(1, round(arguments.rate / 8)) * plan[-1][1]
        made = sum(kind_of(plan, begin, moment) is not None for moment, _ in calls)
        counts["calls that kept connections lacked"] += max(0, wanted - made) if made < 0.95 * wanted else 0
        latencies[f"{protocol}, kept connection"] = latency(plan, begin, calls)
        counts["calls"] += len(calls)
        counts["failed calls"] += failed
    latencies["new connection and call"] = latency(
        plan, begin, [(start, end - start) for start, _, end, _, failed in fresh if not failed])

    errors = [failed for *_, failed in fresh if failed]
    counts["calls"] += len(fresh)
    counts["failed calls"] += sum(where == "call" for where, _ in errors)
    counts["handshakes"] = len(fresh)
    counts["failed handshakes"] = sum(where == "handshake" for where, _ in errors)
    counts["stale handshakes"] = 0
    first_seen = [None] * len(written)
    for start, shaken, _, serial, _ in fresh:
        if serial is None:
            continue
        number = serial - FIRST_SERIAL
        if not 0 <= number <= len(written) or (number < len(written) and start > written[number][2]):
            counts["stale handshakes"] += 1
        for index in range(min(number, len(written))):
            if first_seen[index] is None or shaken < first_seen[index]:
                first_seen[index] = shaken
    lags = [max(0, seen - ended) if seen else float("inf") for seen, (_, ended, _) in zip(first_seen, written)]
    counts["calls on the held connection"] = faithful["held_calls"]
    counts["held connections lost"] = faithful["held_lost"]
    counts["resumptions of the first sessions"] = faithful["resumptions"]
    counts["resumptions lost"] = faithful["resumptions_lost"]
    counts["complaints about the admin listener"] = len(complaints)

    bad = [f"{count} {what}" for what, count in counts.items()
           if count and what.startswith(("failed", "stale", "held connections", "resumptions lost", "complaints",
                                         "calls that kept"))]
    if statistics.median(lags) > SEEN_WITHIN:
        bad.append(f"half of the rotations were seen later than {SEEN_WITHIN * 1000:.0f} ms after the write")
    rows = []
    for what, figures in latencies.items():
        worse = figures[True][1] / figures[False][1] - 1
        rows.append((what, *(1000 * figure for kind in (False, True) for figure in figures[kind]),
                     worse, figures["chance"]))
        if worse > arguments.p99_tolerance and figures["chance"] < 0.01:
            bad.append(f"p99 of {what}: {worse:+.0%}")
    remarks = list(dict.fromkeys([text for _, text in errors] + faithful["errors"] + complaints))
    return {"rotations": len(written), "counts": counts, "latency_ms": rows, "bad": bad, "remarks": remarks,
            "seen_after_ms": [1000 * statistics.median(lags), 1000 * max(lags)]}


def print_report(title, report):
    print(f"\n{title}: {report['rotations']} rotations")
    for what, count in report["counts"].items():
        print(f"  {what:38} {count:8}")
    print("  from the write to the first handshake   median {:.0f} ms, longest {:.0f} ms".format(
        *report["seen_after_ms"]))
    print("  latency in ms              without rotation: p50      p99   with rotation: p50      p99")
    for what, *figures, worse, chance in report["latency_ms"]:
        if all(figure == figure for figure in figures):
            print("  {:38} {:9.3f} {:8.3f} {:19.3f} {:8.3f}  {:+.0%} (by chance: {:.0%})".format(
                what, *figures, worse, chance))
        else:
            print(f"  {what:38}           too few calls were answered")
    for remark in report["remarks"][:8]:
        print(f"  said: {remark}")
    print(f"  {'FAILED: ' + '; '.join(report['bad']) if report['bad'] else 'no caller could tell'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, action="append", help="default: rename")
    parser.add_argument("--all", action="store_true", help="all four ways, one after the other")
    parser.add_argument("--seconds", type=int, default=60, help="with rotation, and as long without (default: 60)")
    parser.add_argument("--stretch", type=int, default=5, help="seconds before it changes (default: 5)")
    parser.add_argument("--rate", type=int, default=480, help="calls per second over each of h1 and h2 (default: 480)")
    parser.add_argument("--handshakes", type=int, default=100, help="new connections per second (default: 100)")
    parser.add_argument("--p99-tolerance", type=float, default=0.10, metavar="SHARE", help="default: 0.10")
    parser.add_argument("--peer", choices=["nginx"], help="measure this one instead of scorefront")
    parser.add_argument("--binary", type=Path, default=support.default_binary())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there too")
    arguments = parser.parse_args()

    os.sched_setaffinity(0, {support.LOAD_CPU})
    reports = {}
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        plan = stretches(arguments.seconds, min(arguments.stretch, arguments.seconds))
        pairs = write_pairs(directory, 1 + sum(int(end - start) for start, end, rotating in plan if rotating))
        for way in WAYS if arguments.all else arguments.way or ["rename"]:
            (directory / way).mkdir()
            reports[way] = run(way, arguments, directory / way, pairs)
            print_report(f"{arguments.peer or 'scorefront'}, {way}", reports[way])
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=1))
    sys.exit(any(report["bad"] for report in reports.values()))


if __name__ == "__main__":
    main()
