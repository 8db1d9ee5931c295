"""The files of a cluster as Kubernetes mounts them, and front ends in containers that serve them.

A mounted volume is a directory of links into `..data`, which is itself a link to the directory that holds this version;
a change makes a new directory and renames a new `..data` over the old one.
"""

import hashlib
import http.client
import itertools
import os
import secrets

from engine import Container
from support import CNAME, Admin, Failed, expect, wait_until

# Who the image runs as.
USER = 65532
# What `docker run` is given everywhere.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--user", str(USER), "--security-opt", "no-new-privileges", "--memory",
            "64m")
HTTPS, ADMIN, PEERS = 8443, 8900, 8444


MAIN = """
include = ["services/*.toml"]
[frontend]
https = "0.0.0.0:{https}"
{settings}
[admin]
listen = "0.0.0.0:{admin}"
token_file = "secrets/admin-token"
[[cname]]
name = "{cname}"
cert_pem = "certs/tls.crt"
key_pem = "certs/tls.key"
"""
SERVICE = """
[[service]]
name = "iris"
primary_key_sha256 = "{key}"
max_queue_wait = "10s"
max_queue = 1000
health_interval = "1s"
replicas = [{replicas}]
"""


class Volume:
    """A projected volume, as the chart mounts it: ConfigMaps and Secrets in one directory. Files are named by their paths."""

    def __init__(self, directory, files):
        self.directory, self.files, self.versions = directory, {}, itertools.count(1)
        directory.mkdir(parents=True)
        self.swap(files)
        for name in {file.split("/")[0] for file in files}:
            (directory / name).symlink_to(f"..data/{name}")

    def swap(self, files):
        """These files become others, all at once, as the kubelet does it; None is one that is no more."""
        self.files = {name: text for name, text in (self.files | files).items() if text is not None}
        version = self.directory / f"..version_{next(self.versions)}"
        for name, text in self.files.items():
            file = version / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o440)
        for path in (version, *version.rglob("*")):
            os.chown(path, 0, USER)
        link = self.directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.directory / "..data")


class Cluster:
    """The environment that all front ends of a cluster read."""

    def __init__(self, directory, pair, settings="", files=None):
        self.key, self.token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.replicas, self.directory = [], directory / "environment"
        main = MAIN.format(https=HTTPS, admin=ADMIN, cname=CNAME, settings=settings)
        self.volume = Volume(self.directory, {
            "scorefront.toml": main, "services/none.toml": "", "secrets/admin-token": self.token, **self.tls(pair),
            **(files or {})})

    @staticmethod
    def tls(pair):
        return {"certs/tls.crt": pair.cert_text, "certs/tls.key": pair.key_text}

    def renew(self, pair):
        self.volume.swap(self.tls(pair))

    def serve_from(self, replicas):
        """Has the service run by these replicas from now on."""
        self.replicas = list(replicas)
        addresses = ", ".join(f'"http://{replica}"' for replica in self.replicas)
        key = hashlib.sha256(self.key.encode()).hexdigest()
        self.volume.swap({"services/iris.toml": SERVICE.format(key=key, replicas=addresses)})


class FrontEnd(Container):
    def __init__(self, stack, name, image, cluster, networks=(), options=()):
        self.cluster, self.image = cluster, image
        self.options = (*CONFINED, "--volume", f"{cluster.directory}:/etc/scorefront:ro", *options)
        super().__init__(stack, name, image, options=self.options, networks=networks)

    def replace(self):
        """Stops it as an orchestrator does, and starts a new one in its place."""
        status = self.stop()
        expect(status == 0, f"{self.name} exits with {status} when it is stopped:\n{self.logs()[1][-3000:]}")
        self.start_anew()

    def start_anew(self):
        """A new container in the place of the old one, whatever became of that."""
        self.again(self.image, options=self.options)

    @property
    def admin(self):
        return Admin(f"{self.address}:{ADMIN}", self.cluster.token)

    def is_ready(self):
        try:
            return self.admin.send("GET", "/readyz", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_until_ready(self):
        def look():
            if not self.state["Running"]:
                raise Failed(f"{self.name} ended:\n{self.logs()[1][-3000:]}")
            return self.is_ready()

        wait_until(f"{self.name} is ready", look)

    def metric(self, name):
        """The sum of its lines."""
        answer = self.admin.send("GET", "/metrics")
        lines = [line for line in answer.body.decode().splitlines() if line.split("{")[0].split(" ")[0] == name]
        expect(lines, f"there is no metric {name}")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def replicas(self):
        """Each of the replicas of the service, by its address."""
        services = self.admin.get("/v1/replicas")["services"]
        return {replica["address"]: replica for service in services for deployment in service["deployments"]
                for replica in deployment["replicas"]}
