"""`faults.py --azmlinfsrv`: whether health checks mistake real containers at full load for ill ones, or get in their way.

Four azureml-inference-server-http with one sync worker each and a script that sleeps 0.3 s, so that each runs one request
at a time and answers no probe meanwhile. Eight callers in a closed loop keep all four busy and four calls waiting, so the
queue is never full. Stretches of 15 s with a health check every second, and without any, take turns until there were
`--seconds` (60) of each; each stretch has a front end of its own.

Told are calls a second, beside what four of 0.3 s can do and beside what they can do at the time that the containers
really took; answers by status; latencies; how long calls waited and containers took (access log); how often a replica was taken
out (log); probes that a container worked on, in all and under load, and the longest of them (it writes them down).

The bar: no replica is taken out, nothing but 200, calls a second at least 95 % of 4 / 0.3 s, and a p99 with health checks that
is at most a tenth above that without (each the median of the stretches' p99, so that one disturbed stretch decides nothing).

The server is installed from tests/protocols/requirements/azureml.txt in `--venv`, or in the run's temporary directory.
"""

import atexit
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import support
import tail

REQUIREMENTS = support.ROOT / "tests/protocols/requirements/azureml.txt"
REPLICAS, CALLERS = 4, 8
SLEEP = 0.3
STRETCH, SETTLE = 15, 2
THROUGHPUT_BAR, LATENCY_BAR = 0.95, 1.1
FIRST_PORT = 5001
# The server does not write down who asks for its health: hence a look at what its worker takes.
SCRIPT = f"""import time
from gunicorn.workers.sync import SyncWorker

handle_request = SyncWorker.handle_request


def noted(self, listener, request, client, address):
    began = time.monotonic()
    try:
        handle_request(self, listener, request, client, address)
    finally:
        if request.method == "GET":
            with open("probes", "a") as file:
                file.write(f"{{began}} {{time.monotonic()}}\\n")


def init():
    SyncWorker.handle_request = noted


def run(data):
    time.sleep({SLEEP})
    return [0]
"""


def install(arguments):
    """Before the network is left. The directory is handed on as an argument of this program."""
    if not arguments.binary.exists():
        raise SystemExit(f"{arguments.binary} is not there; build it as the top of --help says")
    if not arguments.venv:
        # Removed by `run`, which has the same process.
        arguments.venv = Path(tempfile.mkdtemp(prefix="faults-venv-"))
        sys.argv += ["--venv", str(arguments.venv), "--remove-venv"]
    if (arguments.venv / "bin/azmlinfsrv").exists():
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", arguments.venv], check=True, timeout=120)
        subprocess.run([arguments.venv / "bin/pip", "install", "--quiet", "-r", REQUIREMENTS], check=True, timeout=300)
    except BaseException:
        if "--remove-venv" in sys.argv:
            shutil.rmtree(arguments.venv, ignore_errors=True)
        raise


def start_container(stack, number, arguments, work):
    """In a process group of its own, because it has workers; ended as one."""
    folder = work / f"replica{number}"
    folder.mkdir()
    (folder / "score.py").write_text(SCRIPT)
    output = stack.enter_context(open(folder / "log", "wb"))
    port = FIRST_PORT + number
    process = subprocess.Popen(
        [arguments.venv / "bin/azmlinfsrv", "--entry_script", "score.py", "--port", str(port), "--worker_count", "1"],
        cwd=folder, env={**os.environ, "HOME": str(folder)}, stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, start_new_session=True)

    def end():
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        process.wait(5)

    stack.callback(end)
    return port, process, folder / "log"


def wait_for_model(port, process, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if support.admin(f"127.0.0.1:{port}", "/", timeout=5)[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"no model server on port {port}:\n{log.read_text()[-2000:]}")


def scorefront_command(work, ports, interval, arguments):
    addresses = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    (work / "scorefront.toml").write_text(
        '[frontend]\nhttps = "127.0.0.1:8443"\nthreads = 2\ndrain_grace = "10ms"\ndrain_timeout = "2s"\n'
        '[admin]\nlisten = "127.0.0.1:8900"\n[log]\naccess = true\nformat = "json"\n'
        '[[cname]]\nname = "localhost"\ncert_pem = "cert.pem"\nkey_pem = "key.pem"\n'
        '[[service]]\nname = "iris"\nauth = false\nmax_queue = 100\nmax_queue_wait = "5s"\n'
        f'health_interval = "{interval}"\nreplicas = [{addresses}]\n')
    return [arguments.binary, "serve", "--config", work / "scorefront.toml"]


def call_for(seconds, work):
    """The closed loop: when each call was done, how long it took, and its status or what went wrong."""
    context = support.caller_context(work / "cert.pem", "http/1.1")
    began = time.monotonic()
    found = []

    def caller():
        connection = None
        while (sent := time.monotonic()) < began + seconds:
            try:
                connection = connection or support.connect(context, "localhost", 8443, timeout=30)
                result = support.call_http1(connection, "localhost")
            except (OSError, support.Broken) as error:
                result, connection = type(error).__name__, None
                time.sleep(0.1)
            done = time.monotonic()
            found.append((done - began, done - sent, result))
        if connection:
            connection.close()

    threads = [threading.Thread(target=caller, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    return found


def probes(logs):
    """When the containers began and ended to answer each request for their health."""
    files = (log.parent / "probes" for log in logs)
    lines = (line for file in files if file.exists() for line in file.read_text().splitlines())
    return [tuple(map(float, line.split())) for line in lines]


def stretch(ports, logs, interval, arguments, work):
    with ExitStack() as stack:
        output, errors = (stack.enter_context(open(work / f"proxy.{kind}", "wb")) for kind in ("out", "err"))
        started = time.monotonic()
        process = support.start(stack, scorefront_command(work, ports, interval, arguments), output=output, errors=errors,
                                cpu=f"{support.SERVER_CPU},{support.LOAD_CPU}")
        support.wait_for(8443, process)
        began = time.monotonic()
        found = call_for(STRETCH + SETTLE, work)
        seen = [probe for probe in probes(logs) if probe[0] >= started]
        process.terminate()
        process.wait(10)
    access = [json.loads(line) for line in (work / "proxy.out").read_text().splitlines() if line.startswith("{")]
    log = (work / "proxy.err").read_text()
    settled = [call for call in found if SETTLE <= call[0] < SETTLE + STRETCH]
    # Calls come to an end four at a time: counted from one such end to another, they make no fraction of one.
    first = max((call[0] for call in found if call[0] < SETTLE), default=SETTLE)
    last = max((call[0] for call in settled), default=SETTLE + STRETCH)
    rate = len([call for call in settled if call[2] == 200]) / (last - first)
    return {
        "interval": interval, "rate": rate, "statuses": Counter(str(call[2]) for call in found),
        "latencies": [call[1] * 1e3 for call in settled],
        "model_ms": [line["model_ms"] for line in access if line.get("model_ms")],
        "queue_ms": [line["queue_ms"] for line in access], "taken_out": log.count("replica taken out"), "probes": len(seen),
        "probes_under_load": sum(began + SETTLE <= at < began + SETTLE + STRETCH for at, _ in seen),
        "longest_probe_ms": max((end - at for at, end in seen), default=0) * 1e3,
    }


def run(arguments):
    """Returns what of the bar was missed."""
    if arguments.remove_venv:
        atexit.register(shutil.rmtree, arguments.venv, ignore_errors=True)
    stretches = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tail.write_certificate(work)
        containers = [start_container(stack, number, arguments, work) for number in range(REPLICAS)]
        for container in containers:
            wait_for_model(*container)
        ports, logs = [port for port, *_ in containers], [log for *_, log in containers]
        rounds = max(1, round(arguments.seconds / STRETCH))
        for number in range(rounds):
            # In turned order every second time, so that what drifts falls on both.
            for interval in ("1s", "0s") if number % 2 == 0 else ("0s", "1s"):
                stretches.append(stretch(ports, logs, interval, arguments, work))
                print(f"  stretch {len(stretches)} of {2 * rounds}, health checks {interval}: {stretches[-1]['rate']:.2f} calls"
                      f" a second", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(stretches, indent=1) + "\n")
    return report(stretches)


def report(stretches):
    could = REPLICAS / SLEEP
    print(f"four azmlinfsrv of {SLEEP} s a call, {CALLERS} callers: {could:.2f} calls a second are what they can do")
    print(f"{'health_interval':16}{'calls/s':>9}{'of could':>9}{'of theirs':>10}{'p50 ms':>8}{'p99 ms':>8}{'(stretches)':>16}"
          f"{'max ms':>8}{'queue p50':>10}{'theirs ms':>10}{'out':>5}{'probes':>7}{'under load':>11}{'longest':>8}  answers")
    found, wrong = {}, []
    for interval in ("1s", "0s"):
        these = [one for one in stretches if one["interval"] == interval]
        pooled = {name: [figure for one in these for figure in one[name]]
                  for name in ("latencies", "model_ms", "queue_ms")}
        rate = statistics.mean(one["rate"] for one in these)
        theirs = statistics.mean(pooled["model_ms"] or [0])
        p99s = [support.percentile(one["latencies"], 0.99) for one in these]
        statuses = sum((one["statuses"] for one in these), Counter())
        out, seen, under_load = (sum(one[name] for one in these) for name in ("taken_out", "probes", "probes_under_load"))
        longest = max(one["longest_probe_ms"] for one in these)
        found[interval] = p99 = statistics.median(p99s)
        print(f"{interval:16}{rate:9.2f}{rate / could:9.1%}{rate * theirs / REPLICAS / 1e3:10.1%}"
              f"{support.percentile(pooled['latencies'], 0.5):8.0f}{p99:8.0f}{f'{min(p99s):.0f} to {max(p99s):.0f}':>16}"
              f"{max(pooled['latencies'], default=0):8.0f}{support.percentile(pooled['queue_ms'], 0.5):10.0f}{theirs:10.1f}"
              f"{out:5}{seen:7}{under_load:11}{longest:8.1f}  {dict(statuses)}")
        if interval == "1s":
            if out:
                wrong.append(f"replicas were taken out {out} times")
            if set(statuses) - {"200"}:
                wrong.append(f"not every call was answered with 200: {dict(statuses)}")
            if rate < could * THROUGHPUT_BAR:
                wrong.append(f"{rate:.2f} calls a second are {rate / could:.1%} of {could:.2f}, not {THROUGHPUT_BAR:.0%} or more")
    if not found["1s"] <= found["0s"] * LATENCY_BAR:
        wrong.append(f"p99 is {found['1s']:.0f} ms with health checks and {found['0s']:.0f} ms without")
    return wrong
