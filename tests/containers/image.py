"""The image alone: what is in it, how little it may do, how soon it is ready, what it takes, and how it stops."""

import json
import os
import re
import subprocess
import time
from datetime import datetime

from cluster import CONFINED, HTTPS, USER, Cluster, FrontEnd
from engine import Container, Network, docker, run
from support import CNAME, Authority, done, expect, wait_until

MIB = 1024 * 1024
# The bar of the image, and of what is published in README.md.
LARGEST, MOST_MEMORY, LONGEST_START = 60 * MIB, 20 * MIB, 0.5


def build(arguments, _, image):
    """What is under test was built just now, but for a program that was given."""
    if arguments.program:
        image = arguments.bases.built(quickly=True)
    version = docker("run", "--rm", *CONFINED, image, "--version")
    done(f"the Dockerfile builds {version}, without a network{' and without optimizations' * bool(arguments.program)}")


def image(arguments, stack, image):
    authority = Authority(arguments.directory / "authority")
    cluster = Cluster(arguments.directory / "image", authority.pair("image"), 'drain_grace = "500ms"')
    network = Network(stack, "image")
    is_as_said(image)
    front = FrontEnd(stack, "confined", image, cluster, [(network, 10)])
    front.wait_until_ready()
    starts_soon(front)
    takes_little(front)
    is_healthy(front)
    outlives_half_a_secret(front)
    stops_as_first_process(stack, image, arguments, authority, network)
    counts_its_cpus(stack, image, cluster, network)


def is_as_said(image):
    [found] = json.loads(docker("image", "inspect", image))
    config = found["Config"]
    expect(found["Size"] < LARGEST, f"the image has {found['Size'] / MIB:.1f} MiB")
    expect(config["User"] == f"{USER}:{USER}", f"the image runs as {config['User']}")
    expect(config["StopSignal"] == "SIGTERM", f"it is stopped by {config['StopSignal']}")
    expect(config["Healthcheck"]["Test"][0] == "CMD", f"its health check needs a shell: {config['Healthcheck']}")
    for label in ("title", "description", "licenses", "version", "revision"):
        expect(config["Labels"].get(f"org.opencontainers.image.{label}"), f"it has no label {label}")
    for shell in ("/bin/sh", "/bin/bash", "/busybox/sh"):
        started = run("run", "--rm", "--entrypoint", shell, image, "-c", "true")
        expect(started.returncode == 127, f"there is a {shell} in it: {started.returncode} {started.stderr}")
    version = docker("run", "--rm", *CONFINED, image, "--version")
    done(f"{found['Size'] / MIB:.1f} MiB, no shell, {version}, with labels and a health check of its own")


def starts_soon(front):
    """From the start of the process to the first /readyz that says so, three times: the first one reads the disk."""
    took = []
    for _ in range(3):
        docker("stop", "--time", 30, front.name)
        docker("start", front.name)
        wait_until(f"{front.name} is ready", front.is_ready)
        ready = time.time()
        started = re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", front.state["StartedAt"])
        took.append(ready - datetime.fromisoformat(started).timestamp())
    expect(min(took) < LONGEST_START, f"it is ready after {min(took):.2f} s")
    done(f"read-only, without capabilities, as {USER}, in 64 MiB: ready {min(took) * 1e3:.0f} ms after its start "
         f"(the longest of {len(took)}: {max(took) * 1e3:.0f} ms)")


def takes_little(front):
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", front.name).split(" / ")[0]
    number, unit = re.fullmatch(r"([\d.]+)([KMG]iB)", used).groups()
    used = float(number) * {"KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}[unit]
    status = open(f"/proc/{front.state['Pid']}/status").read()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
    expect(max(used, resident) < MOST_MEMORY, f"at rest it takes {used / MIB:.1f} MiB, {resident / MIB:.1f} MiB resident")
    done(f"at rest it takes {used / MIB:.1f} MiB ({resident / MIB:.1f} MiB resident, its program's pages included)")


def is_healthy(front):
    wait_until("the engine says that it is healthy", lambda: front.state["Health"]["Status"] == "healthy", 30)
    # Without its certificate it is not to be sent calls; a new one mends that.
    volume = front.cluster.volume
    key = volume.files["certs/tls.key"]
    volume.swap({"certs/tls.key": "nothing\n"})
    front.start_anew()
    said = wait_until("health says why not",
                      lambda: (found := front.execute("/usr/local/bin/scorefront", "health")).stdout and found)
    expect(said.returncode == 1 and "no certificate is loaded" in said.stdout, f"health says {said}")
    alive = front.execute("/usr/local/bin/scorefront", "health", "--live")
    expect(alive.returncode == 0, f"health --live says {alive}")
    wait_until("the engine says that it is unhealthy", lambda: front.state["Health"]["Status"] == "unhealthy", 60)
    volume.swap({"certs/tls.key": key})
    front.wait_until_ready()
    wait_until("the engine says that it is healthy again", lambda: front.state["Health"]["Status"] == "healthy", 30)
    done("its health check says healthy, why it is not, and healthy again")


def outlives_half_a_secret(front):
    """A Secret without tls.key: what was served before goes on, and the log and a metric say so."""
    volume = front.cluster.volume
    key = volume.files["certs/tls.key"]
    volume.swap({"certs/tls.key": None})
    taken = "scorefront_certificate_last_reload_success"
    wait_until("the metric says that it is not taken", lambda: front.metric(taken) == 0)
    # It is told once it has been so for a while: whoever replaces files may have taken one away first.
    said = wait_until("the log says that tls.key is missing", lambda: [
        line for line in front.logs()[1].splitlines() if "not taken" in line and "certs/tls.key" in line])
    expect(front.is_ready(), "it is not ready any more")
    volume.swap({"certs/tls.key": key})
    wait_until("the metric says that all is well", lambda: front.metric(taken) == 1)
    done(f"a Secret without tls.key is not taken, and it serves on: {json.loads(said[0])['message'][:100]}…")


def stops_as_first_process(stack, image, arguments, authority, network):
    """A call under way is finished; one that hangs is cut at drain_timeout; a second signal ends it at once."""
    slow = Container(stack, "slow", arguments.debian, "python3", "/tests/replica.py", "--milliseconds", "1500",
                     options=["--volume", f"{arguments.tests}:/tests:ro"], networks=[(network, 20)])
    cluster = Cluster(arguments.directory / "stop", authority.pair("stop"),
                      'drain_grace = "200ms"\ndrain_timeout = "5s"')
    cluster.serve_from([f"{slow.address}:5001"])
    front = FrontEnd(stack, "first", image, cluster, [(network, 11)])
    front.wait_until_ready()
    with call(arguments, authority, front, cluster) as calling:
        front.signal("TERM")
        status = front.wait(20)
        said = calling.communicate(timeout=20)[0].decode()
    expect(said == "[3]\n200", f"the call under way got {said!r}")
    expect(status == 0, f"after SIGTERM as process 1 it exits with {status}:\n{front.logs()[1][-2000:]}")
    expect("stopped; nothing was cut" in front.logs()[1], f"it says\n{front.logs()[1][-2000:]}")

    front.start_anew()
    front.wait_until_ready()
    with call(arguments, authority, front, cluster):
        front.signal("TERM")
        wait_until("it stops", lambda: "stopping" in front.logs()[1])
        front.signal("TERM")
        begun, status = time.monotonic(), front.wait(20)
    expect(status == 1 and time.monotonic() - begun < 3, f"after a second SIGTERM it exits with {status}")
    done("SIGTERM as process 1: the call under way is answered, exit status 0; a second one ends it at once")


def call(arguments, authority, front, cluster):
    """curl with one call under way."""
    before = front.metric("scorefront_requests_in_flight")
    calling = subprocess.Popen(
        ["curl", "-sS", "--max-time", "20", "--cacert", authority.pem, "--connect-to", f"::{front.address}:{HTTPS}",
         "-H", f"Authorization: Bearer {cluster.key}", "-d", '{"data": [[1, 2]]}', "-w", "\n%{http_code}",
         f"https://{CNAME}/api/v1/service/iris/score"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until("the call is under way", lambda: front.metric("scorefront_requests_in_flight") > before)
    return calling


def counts_its_cpus(stack, image, cluster, network):
    """As many threads as the quota has whole CPUs, and not more than there are."""
    available = len(os.sched_getaffinity(0))
    told = []
    for option, value, threads in (("--cpus", "1", 1), ("--cpus", "2", 2), ("--cpus", "0.5", 1),
                                   ("--cpuset-cpus", "0", 1)):
        if threads > available:
            continue
        front = FrontEnd(stack, f"cpus-{value}-{option[2:]}", image, cluster, [(network, 12)], [option, value])
        front.wait_until_ready()
        found = front.metric("scorefront_worker_threads")
        expect(found == threads, f"with {option} {value} there are {found:.0f} threads")
        told.append(f"{option} {value}: {threads}")
        front.stop()
        front.remove()
    done(f"threads by quota: {', '.join(told)}")
