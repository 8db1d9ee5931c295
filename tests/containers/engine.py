"""Docker's command line, as far as these tests need it. Whatever is made here is taken away again, by its own name."""

import json
import random
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "management"))

from support import Failed, expect  # noqa: E402

# Of everything one run makes, so that two runs do not meet.
RUN = f"scorefront-test-{uuid.uuid4().hex[:8]}"


def run(*words, timeout=120, **options):
    return subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, errors="replace",
                          timeout=timeout, stdin=subprocess.DEVNULL, check=False, **options)


def docker(*words, timeout=120):
    """What it prints; it has to succeed."""
    done = run(*words, timeout=timeout)
    expect(done.returncode == 0, f"docker {' '.join(map(str, words))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def has_image(tag):
    return run("image", "inspect", tag).returncode == 0


def build(tag, context, *words):
    """Builds an image without any network; everything it takes is in its base images."""
    return docker("build", "--network", "none", "--tag", tag, *words, context, timeout=3000)


class Network:
    """A private network, from which nothing outside is reached, with addresses that can be foretold."""

    def __init__(self, stack, name):
        self.name = f"{RUN}-{name}"
        stack.callback(run, "network", "rm", self.name)
        # Others may have a subnet already.
        for number in random.sample(range(256), 20):
            self.prefix = f"10.232.{number}."
            made = run("network", "create", "--internal", "--subnet", f"{self.prefix}0/24", self.name)
            if made.returncode == 0:
                return
        raise Failed(f"no private network can be made: {made.stderr}")

    def address(self, host):
        return f"{self.prefix}{host}"

    def disconnect(self, container):
        docker("network", "disconnect", self.name, container.name)

    def connect(self, container, host):
        docker("network", "connect", "--ip", self.address(host), self.name, container.name)


class Container:
    """A container that runs until the stack it was started on is left."""

    def __init__(self, stack, name, image, *command, options=(), networks=()):
        """`networks` are pairs of a network and the number of this host in it; without any, it has the engine's own."""
        self.name, self.networks = f"{RUN}-{name}", networks
        stack.callback(self.remove)
        self.again(image, *command, options=options)

    def again(self, image, *command, options=()):
        """A new container in the place of the one there was, if there was one: on all its networks before it starts."""
        self.remove()
        first = [word for network, host in self.networks[:1]
                 for word in ("--network", network.name, "--ip", network.address(host))]
        docker("create", "--name", self.name, *first, *options, image, *command)
        for network, host in self.networks[1:]:
            network.connect(self, host)
        docker("start", self.name)

    def remove(self):
        """Its name and its addresses are free again."""
        run("rm", "--force", "--volumes", self.name)

    def inspect(self):
        [found] = json.loads(docker("inspect", self.name))
        return found

    @property
    def state(self):
        return self.inspect()["State"]

    @property
    def address(self):
        if self.networks:
            network, host = self.networks[0]
            return network.address(host)
        return self.inspect()["NetworkSettings"]["IPAddress"]

    def logs(self):
        done = run("logs", self.name)
        return done.stdout, done.stderr

    def execute(self, *command, timeout=60):
        return run("exec", self.name, *command, timeout=timeout)

    def signal(self, number):
        docker("kill", "--signal", number, self.name)

    def stop(self, patience=60):
        """SIGTERM, as every orchestrator does; the exit status."""
        docker("stop", "--time", patience, self.name, timeout=patience + 30)
        return self.state["ExitCode"]

    def wait(self, patience=60):
        """The exit status once it has ended by itself."""
        try:
            return int(docker("wait", self.name, timeout=patience))
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {patience} s:\n{self.logs()[1][-2000:]}") from None
