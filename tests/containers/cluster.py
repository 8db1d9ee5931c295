"""The files of a cluster as Kubernetes mounts them, and front ends in containers that serve them.

A mounted volume is a directory of links into `..data`, which is itself a link to the directory that holds this version;
a change makes a new directory and renames a new `..data` over the old one.
"""

import hashlib
import http.client
import itertools
import os
import secrets

from engine import Container, expect, wait_until
from support import CNAME, Admin, Failed

# Who the image runs as.
USER = 65532
# What `docker run` is given everywhere.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--user", str(USER), "--security-opt", "no-new-privileges", "--memory",
            "64m")
HTTPS, ADMIN = 8443, 8900


class Volume:
    """A Secret or ConfigMap as it is mounted."""

    def __init__(self, directory, files):
        self.directory, self.versions = directory, itertools.count(1)
        directory.mkdir(parents=True)
        self.swap(files)
        for name in files:
            (directory / name).symlink_to(f"..data/{name}")

    def swap(self, files):
        """All of its files at once, as the kubelet does it."""
        version = self.directory / f"..version_{next(self.versions)}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
            (version / name).chmod(0o440)
        for path in (version, *version.iterdir()):
            os.chown(path, 0, USER)
        link = self.directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.directory / "..data")


class Cluster:
    """What all front ends of a cluster read: a Secret with the certificate, one with the token, a ConfigMap."""

    def __init__(self, directory, pair, settings=""):
        self.key, self.token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.settings, self.replicas, self.directory = settings, [], directory
        self.certificate = Volume(directory / "tls", self.tls(pair))
        self.admin_token = Volume(directory / "token", {"token": self.token})
        self.config = Volume(directory / "config", self.text())
        directory.chmod(0o755)

    @staticmethod
    def tls(pair):
        return {"tls.crt": pair.cert_text, "tls.key": pair.key_text}

    def text(self):
        replicas = ", ".join(f'"http://{replica}"' for replica in self.replicas)
        service = f"""
[[service]]
name = "iris"
primary_key_sha256 = "{hashlib.sha256(self.key.encode()).hexdigest()}"
max_queue_wait = "10s"
max_queue = 1000
health_interval = "1s"
replicas = [{replicas}]
""" if self.replicas else ""
        return {"scorefront.toml": f"""
[frontend]
https = "0.0.0.0:{HTTPS}"
{self.settings}
[admin]
listen = "0.0.0.0:{ADMIN}"
token_file = "/etc/scorefront/token/token"
[[cname]]
name = "{CNAME}"
cert_pem = "/etc/scorefront/tls/tls.crt"
key_pem = "/etc/scorefront/tls/tls.key"
{service}"""}

    def serve_from(self, replicas):
        """Has the service run by these replicas from now on."""
        self.replicas = list(replicas)
        self.config.swap(self.text())

    @property
    def mounts(self):
        kinds = [("config", "config"), ("tls", "tls"), ("token", "token")]
        return [word for kind, place in kinds
                for word in ("--volume", f"{self.directory / kind}:/etc/scorefront/{place}:ro")]


class FrontEnd(Container):
    def __init__(self, stack, name, image, cluster, networks=(), options=()):
        self.cluster, self.image, self.options = cluster, image, (*CONFINED, *cluster.mounts, *options)
        super().__init__(stack, name, image, *self.command, options=self.options, networks=networks)

    command = ("serve", "--config", "/etc/scorefront/config/scorefront.toml")

    def replace(self):
        """Stops it as an orchestrator does, and starts a new one in its place."""
        status = self.stop()
        expect(status == 0, f"{self.name} exits with {status} when it is stopped:\n{self.logs()[1][-3000:]}")
        self.again(self.image, *self.command, options=self.options)

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
