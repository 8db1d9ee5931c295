"""Three front ends behind a balancer that only knows TCP, four replicas, and load without a pause, over HTTP/1.1 and HTTP/2;
each its own container. Front ends, replicas, certificate and configuration are replaced one after the other, and no call may
fail."""

import json
import secrets
import time

from cluster import ADMIN, HTTPS, PEERS, Cluster, FrontEnd
from engine import Container, Network
from support import CNAME, Authority, Failed, done, expect, wait_until

FRONTS, REPLICAS, ROUNDS = 3, 4, 2
PORT = 5001
# What the balancer needs to notice that a front end is no longer ready, many times over.
GRACE = 3
SCORING_TIMEOUT = 10
# The bar of a replica that is cut off, in seconds: what a connection may take to open, when it is back, and what clocks
# and a busy machine may differ by.
CONNECT, BACK, SLACK = 3, 5, 2

BALANCER = """
global
  maxconn 4000
defaults
  mode tcp
  # Nothing is tried again here either.
  retries 0
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend callers
  bind :8443
  default_backend fronts
backend fronts
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check port {admin} inter 250ms fall 1 rise 2
"""


class Site:
    """All of it, on two networks: callers reach front ends, and front ends alone reach replicas."""

    def __init__(self, arguments, stack, image, milliseconds, is_shared=False):
        self.arguments, self.stack = arguments, stack
        self.authority = Authority(arguments.directory / "authority")
        self.callers, self.models = Network(stack, "callers"), Network(stack, "models")
        pair = self.authority.pair("first")
        directory = arguments.directory / f"site{milliseconds}"
        settings = (f'drain_grace = "{GRACE}s"\ndrain_timeout = "30s"\n[defaults]\n'
                    f'scoring_timeout = "{SCORING_TIMEOUT}s"\n')
        if is_shared:
            members = [f"{self.callers.address(10 + number)}:{PEERS}" for number in range(FRONTS)]
            settings += f'[cluster]\nsecret_file = "secrets/cluster"\nmembers = {json.dumps(members)}\n'
        self.cluster = Cluster(directory / "files", pair, settings, {"secrets/cluster": secrets.token_urlsafe(32)})
        self.tools = ["--volume", f"{arguments.tests}:/tests:ro", "--volume", f"{directory}:/site:ro"]
        self.replica_command = ["python3", "/tests/replica.py", "--port", str(PORT), "--milliseconds", str(milliseconds)]
        self.replicas = [Container(stack, f"replica{number}", arguments.debian, *self.replica_command, options=self.tools,
                                   networks=[(self.models, 20 + number)]) for number in range(REPLICAS)]
        self.cluster.serve_from(self.at(replica) for replica in self.replicas)
        self.fronts = [FrontEnd(stack, f"front{number}", image, self.cluster,
                                [(self.callers, 10 + number), (self.models, 10 + number)]) for number in range(FRONTS)]
        for front in self.fronts:
            front.wait_until_ready()
        servers = "".join(f"  server front{number} {front.address}:{HTTPS}\n"
                          for number, front in enumerate(self.fronts))
        (directory / "haproxy.cfg").write_text(BALANCER.format(admin=ADMIN) + servers)
        (directory / "ca.pem").write_bytes(self.authority.pem.read_bytes())
        self.balancer = Container(stack, "balancer", arguments.debian, "haproxy", "-db", "-f", "/site/haproxy.cfg",
                                  options=self.tools, networks=[(self.callers, 5)])

    @staticmethod
    def at(replica):
        return f"{replica.address}:{PORT}"

    def logs(self):
        """The last that each of its containers wrote, for whoever asks why nothing goes."""
        return "\n".join(f"-- {container.name}\n{''.join(container.logs())[-1500:]}"
                         for container in [self.balancer, *self.fronts, *self.replicas])

    def calls(self):
        return sum(front.metric("scorefront_requests_total") for front in self.fronts if front.is_ready())


class Load:
    """Calls without a pause, from the block's beginning to its end."""

    def __init__(self, site, name):
        self.site, self.name, self.said = site, name, None

    def __enter__(self):
        site = self.site
        before = site.calls()
        self.container = Container(
            site.stack, f"load-{self.name}", site.arguments.debian, "python3", "/tests/load.py", "--connect",
            f"{site.balancer.address}:8443", "--name", CNAME, "--ca", "/site/ca.pem",
            # One in 64 begins with a dash.
            f"--key={site.cluster.key}",
            options=site.tools, networks=[(site.callers, 6)])
        try:
            wait_until("calls are answered", lambda: site.calls() > before + 100)
        except Failed as failure:
            raise Failed(f"{failure}\n{self.ending()}\n{site.logs()}") from None
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            said = self.ending()
            expect(said.startswith("{"), said)
            self.said = json.loads(said)
        # Its address is the next one's.
        self.container.remove()

    def ending(self):
        """What it says at its end, to which it is brought."""
        if self.container.state["Running"]:
            self.container.signal("TERM")
            self.container.wait()
        output, errors = self.container.logs()
        return output or f"the load said nothing: {errors[-3000:]}"

    def expect_nothing_failed(self, what):
        said = self.said
        expect(said["failed"] == 0, f"{what}: {said['failed']} of {said['calls']} calls failed: "
                                    f"{json.dumps(said['failures'], indent=1)}")
        http2 = said["http2"]
        expect(http2["calls"] > 0, f"{what}: nobody called over HTTP/2")
        done(f"{what}: 0 of {said['calls']} calls failed in {said['seconds']:.0f} s, {http2['calls']} of them over HTTP/2, by "
             f"{http2['connections']} connections (p50 {said['p50_ms']} ms, p99 {said['p99_ms']} ms, longest "
             f"{said['longest_ms']} ms)")


def rollouts(arguments, stack, image):
    site = Site(arguments, stack, image, 10, is_shared=True)
    with Load(site, "fronts") as load:
        for _ in range(ROUNDS):
            for front in site.fronts:
                front.replace()
                front.wait_until_ready()
                wait_until(f"{front.name} is given calls", lambda: front.metric("scorefront_requests_total") > 10)
    load.expect_nothing_failed(f"{FRONTS} front ends replaced one after the other, {ROUNDS} times")
    # Each was told twice: first that it goes, and what is on its way is taken, then where the end is.
    http2 = load.said["http2"]
    expect(http2["told"] > 0 and http2["abrupt"] == 0, f"callers over HTTP/2 were not told in good time: {http2}")

    with Load(site, "replicas") as load:
        for _ in range(ROUNDS):
            for replica in site.replicas:
                replace_replica(site, replica)
    load.expect_nothing_failed(f"{REPLICAS} replicas replaced one after the other, {ROUNDS} times")

    pairs = [site.authority.pair(f"renewed{number}") for number in range(ROUNDS)]
    with Load(site, "secret") as load:
        for pair in pairs:
            swap_secret(site, pair)
    load.expect_nothing_failed(f"the Secret of the certificate swapped {ROUNDS} times")
    serials = {serial.lower().lstrip("0") for serial in load.said["serials"] if serial}
    expect({pair.serial.lstrip("0") for pair in pairs} <= serials, f"callers saw the certificates {serials}")

    expect_one_at_a_time(site.replicas)
    done(f"a replica had one call at a time all along, of {FRONTS} front ends that share them")


def expect_one_at_a_time(replicas):
    for replica in replicas:
        seen = json.loads(replica.execute("python3", "-c", SEEN).stdout)
        expect(seen["most_at_once"] == 1, f"{replica.name} had more than one call at a time: {seen}")


SEEN = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/seen').read().decode())"


def replace_replica(site, replica):
    """As a rollout does it: out of the endpoints, then stopped, and its successor in only once it answers."""
    others = [site.at(other) for other in site.replicas if other is not replica]
    site.cluster.serve_from(others)
    for front in site.fronts:
        wait_until(f"{front.name} has left {replica.name} alone", lambda: set(front.replicas()) == set(others))
    expect_one_at_a_time([replica])
    status = replica.stop()
    expect(status == 0, f"{replica.name} exits with {status}:\n{replica.logs()[1]}")
    replica.again(site.arguments.debian, *site.replica_command, options=site.tools)
    wait_until(f"{replica.name} answers", lambda: replica.execute("python3", "-c", SEEN).returncode == 0)
    site.cluster.serve_from(site.at(replica) for replica in site.replicas)
    for front in site.fronts:
        wait_until(f"{front.name} knows {replica.name}", lambda: site.at(replica) in front.replicas())
    # Whose it is asks it, for all of them.
    wait_until(f"{replica.name} is asked",
               lambda: any(front.replicas()[site.at(replica)].get("mean_ms") for front in site.fronts))


def swap_secret(site, pair):
    site.cluster.renew(pair)
    for front in site.fronts:
        def serves():
            [certificate] = front.admin.get("/v1/certificates")["certificates"]
            return certificate["serial"].replace(":", "").lower().lstrip("0") == pair.serial.lstrip("0")

        wait_until(f"{front.name} serves the new certificate", serves)
    before = site.calls()
    wait_until("calls are answered with it", lambda: site.calls() > before + 100)


def cut_off(arguments, stack, image):
    """The network between the front ends and one replica's host is cut, for a while, without a word to anybody."""
    site = Site(arguments, stack, image, 50)
    ill = site.replicas[0]
    with Load(site, "cut-off") as load:
        before = site.calls()
        wait_until("all replicas are asked", lambda: site.calls() > before + 200)
        cut = time.time()
        site.models.disconnect(ill)
        time.sleep(SCORING_TIMEOUT + 5)
        calls = [front.replicas()[site.at(ill)] for front in site.fronts]
        expect(all(not found["ready"] for found in calls), f"it is still in use: {calls}")
        site.models.connect(ill, 20)
        back = time.monotonic()
        for front in site.fronts:
            wait_until(f"{front.name} asks {ill.name} again", lambda: front.replicas()[site.at(ill)]["ready"], BACK + SLACK)
        back = time.monotonic() - back
        before = site.calls()
        wait_until("calls are answered", lambda: site.calls() > before + 200)
    said = load.said
    expect(said["failed"] <= FRONTS, f"{said['failed']} calls failed, and it could have {FRONTS}: {said['failures']}")
    for failure in said["failures"]:
        was_there = failure["at"] - failure["took"] < cut + SLACK
        expect(failure["what"].startswith("504") and was_there, f"a call failed that was not in its hands: {failure}")
    longest = said["longest_ms"] / 1e3
    expect(longest < CONNECT + SLACK, f"a call that was not in its hands took {longest:.1f} s")
    done(f"a replica cut off: of {said['calls']} calls {said['failed']} failed, 504, which were in its hands; the longest "
         f"of all others took {longest:.1f} s; every front end asks it again {back:.1f} s after it is back")
