"""The example of deploy/compose, started by its one command: real model servers, which the front end finds by name."""

import json
import os
import socket

import engine
from support import CNAME, ROOT, Admin, done, expect, must, run, wait_until

EXAMPLE = ROOT / "deploy/compose"
KEY = "compose-example-key"
DATA = '{"data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.6, 2.4]]}'
KINDS = ["setosa", "virginica"]


class Compose:
    def __init__(self, stack, arguments, image, python):
        self.https, self.admin_port = free_port(), free_port()
        self.project = engine.RUN
        model = f"{engine.RUN}:model"
        self.settings = {**os.environ, "SCOREFRONT_IMAGE": image, "MODEL_IMAGE": model, "PYTHON_IMAGE": python,
                         "HTTPS_PORT": str(self.https), "ADMIN_PORT": str(self.admin_port), "DOCKER_BUILDKIT": "0"}
        stack.callback(engine.run, "image", "rm", "--force", model)
        stack.callback(self, "down", "--volumes", "--timeout", "20")

    def __call__(self, *words):
        return must(["docker-compose", "--project-name", self.project, "--file", EXAMPLE / "compose.yaml", *words],
                    timeout=900, env=self.settings)

    def replicas(self):
        admin = Admin(f"127.0.0.1:{self.admin_port}", (EXAMPLE / "environment/admin-token").read_text().strip())
        try:
            services = admin.get("/v1/replicas")["services"]
        except OSError:
            return []
        return [replica for replica in services[0]["deployments"][0]["replicas"] if replica["healthy"]]

    def score(self):
        said = run(["curl", "-sS", "--max-time", "20", "--cacert", ROOT / "certs-example/ca.pem", "--resolve",
                    f"{CNAME}:{self.https}:127.0.0.1", f"https://{CNAME}:{self.https}/api/v1/service/iris/score", "-H",
                    f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json", "-d", DATA])
        expect(said.returncode == 0, f"curl: {said.stderr}")
        return json.loads(said.stdout)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def compose(arguments, stack, image):
    compose = Compose(stack, arguments, image, arguments.bases.python_image())
    # As the one command does it; but the front end's image is the one that was built already.
    compose("build", "model")
    compose("up", "--detach")
    found = wait_until("both replicas are found and healthy", lambda: len(found := compose.replicas()) == 2 and found, 90)
    expect(compose.score() == KINDS, f"it scores {compose.score()}")
    done(f"compose: azureml-inference-server-http at {', '.join(sorted(one['address'] for one in found))} scores {KINDS}")
    compose("up", "--detach", "--scale", "model=3")
    wait_until("a third replica is found by itself", lambda: len(compose.replicas()) == 3, 120)
    done("compose: --scale model=3, and the front end asks the third by itself")
