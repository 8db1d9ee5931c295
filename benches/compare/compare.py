#!/usr/bin/env python3
"""CPU per request of scorefront, nginx and HAProxy: same load, same replica, same certificate, in rotation, one run.

    cargo build --release && python3 benches/compare/compare.py [--case h1] [--rounds 5] [--requests 40000]

Needs nginx, haproxy, h2load, openssl and taskset (Debian: nginx-light haproxy nghttp2-client openssl util-linux). Every
proxy has one worker and CPU 0 for itself; the load and the replica (an nginx that answers a constant) have CPU 1.
scorefront runs with keys, metrics and its access log on; the others bare. The figure is the CPU time of the proxy's
whole process tree, read from /proc, divided by the requests; a run in which any answer was not 2xx is refused.
Machines are noisy: only the ratios within one run mean anything.
"""

import argparse
import hashlib
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = "benchmark-key"
BODY = '{"data": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.7, 3.1, 5.6, 2.4]]}'
ANSWER = '[{"class":"setosa","probability":0.9816},{"class":"versicolor","probability":0.8131}]'
PATH = "/api/v1/service/iris/score"
CASES = {
    "h1": ["--h1", "-c64"],
    "h2": ["-c8", "-m16"],
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_files(work, ports, old):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", work / "key.pem",
         "-out", work / "cert.pem"],
        check=True, capture_output=True)
    (work / "both.pem").write_text((work / "cert.pem").read_text() + (work / "key.pem").read_text())
    (work / "body.json").write_text(BODY)
    nginx = ("worker_processes 1; daemon off; error_log /dev/null; pid {work}/{name}.pid;\n"
             "events {{ worker_connections 4096; }}\n"
             "http {{ access_log off; keepalive_requests 1000000000;\n{server} }}\n")
    (work / "replica.conf").write_text(nginx.format(
        work=work, name="replica",
        server=f"server {{ listen 127.0.0.1:{ports['replica']};"
               f" location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}"))
    (work / "nginx.conf").write_text(nginx.format(
        work=work, name="nginx",
        server=f"upstream replica {{ server 127.0.0.1:{ports['replica']}; keepalive 256;"
               " keepalive_requests 1000000000; }\n"
               f"server {{ listen 127.0.0.1:{ports['nginx']} ssl http2; server_name localhost;"
               " ssl_certificate cert.pem; ssl_certificate_key key.pem;\n"
               f"location {PATH} {{ proxy_pass http://replica/score; proxy_http_version 1.1;"
               ' proxy_set_header Connection ""; proxy_buffering off; proxy_request_buffering off; } }'))
    (work / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode http\n  http-reuse always\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n"
        f"frontend callers\n  bind 127.0.0.1:{ports['haproxy']} ssl crt {work}/both.pem alpn h2,http/1.1\n"
        "  default_backend replicas\n"
        f"backend replicas\n  http-request set-path /score\n  server one 127.0.0.1:{ports['replica']}\n")
    (work / "scorefront.toml").write_text(
        f'[frontend]\nhttps = "127.0.0.1:{ports["scorefront"]}"\nthreads = 1\n[admin]\nlisten = "127.0.0.1:0"\n'
        '[log]\naccess = true\nformat = "json"\n'
        '[[cname]]\nname = "localhost"\ncert_pem = "cert.pem"\nkey_pem = "key.pem"\n'
        f'[[service]]\nname = "iris"\nprimary_key_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
        f'replicas = ["http://127.0.0.1:{ports["replica"]}"]\n'
        # The replica is an nginx, which takes what comes; so do the others send it.
        + ("" if old else "max_concurrent_requests_per_replica = 0\n"))


def start(stack, cpu, command, output=subprocess.DEVNULL):
    process = subprocess.Popen(["taskset", "-c", str(cpu), *map(str, command)], stdout=output, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    stack.callback(lambda: (os.killpg(process.pid, 9), process.wait()))
    return process.pid


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def cpu_seconds(pid):
    """User and system seconds of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = os.sysconf("SC_CLK_TCK")
    user, system = int(fields[11]) / ticks, int(fields[12]) / ticks
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        child_user, child_system = cpu_seconds(int(child))
        user, system = user + child_user, system + child_system
    return user, system


def load(case, port, requests, work):
    command = ["taskset", "-c", "1", "h2load", "-t1", *CASES[case], f"-n{requests}", "-d", work / "body.json",
               "-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json",
               f"https://localhost:{port}{PATH}"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    good = re.search(r"status codes: (\d+) 2xx", output)
    if not good or int(good[1]) != requests:
        raise SystemExit(f"not every answer was right; this run means nothing:\n{output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--old", action="store_true", help="for a binary that knows no permits")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/scorefront")
    arguments = parser.parse_args()

    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {name: free_port() for name in ("replica", "scorefront", "nginx", "haproxy")}
        write_files(work, ports, arguments.old)
        log = stack.enter_context(open(work / "access.log", "wb"))
        start(stack, 1, ["nginx", "-p", work, "-c", work / "replica.conf"])
        proxies = {
            "scorefront": start(stack, 0, [arguments.binary, "serve", "--config", work / "scorefront.toml"], log),
            "nginx": start(stack, 0, ["nginx", "-p", work, "-c", work / "nginx.conf"]),
            "haproxy": start(stack, 0, ["haproxy", "-f", work / "haproxy.cfg"]),
        }
        for port in ports.values():
            wait_for(port)
        for case in arguments.case or CASES:
            measure(case, arguments, proxies, ports, work)


def measure(case, arguments, proxies, ports, work):
    rounds = {name: [] for name in proxies}
    for name in proxies:
        load(case, ports[name], arguments.requests // 4, work)
    for _ in range(arguments.rounds):
        for name, pid in proxies.items():
            before = cpu_seconds(pid)
            load(case, ports[name], arguments.requests, work)
            after = cpu_seconds(pid)
            rounds[name].append([(b - a) / arguments.requests * 1e6 for a, b in zip(before, after)])
    print(f"{case}: CPU per request in µs, median of {arguments.rounds} rounds of {arguments.requests} requests")
    ours = [sum(figures) for figures in rounds["scorefront"]]
    for name, figures in rounds.items():
        user, system = (statistics.median(column) for column in zip(*figures))
        ratios = [mine / sum(theirs) for mine, theirs in zip(ours, figures)]
        print(f"  {name:11} user {user:5.1f}  system {system:5.1f}  scorefront/{name} {statistics.median(ratios):.2f}"
              f" ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
