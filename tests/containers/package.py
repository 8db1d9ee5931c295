"""The Debian package on a Debian of its own, run by its systemd as the unit says."""

import json
import re
import time

from engine import Container, Network
from support import CNAME, ROOT, Authority, done, expect, must, wait_until

# What systemd needs of the engine to be the first process; the unit then takes all of it away from scorefront.
MACHINE = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
           "--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "--tmpfs", "/run/lock",
           "--tmpfs", "/tmp", "--env", "container=docker"]
TABLES = f"""
[[cname]]
name = "{CNAME}"
cert_pem = "certs/cert.pem"
key_pem = "certs/key.pem"
"""
# What may be counted against the unit by `systemd-analyze security`, of 100.
EXPOSURE = 20


def package(arguments, stack, _image):
    network = Network(stack, "package")
    authority = Authority(arguments.directory / "authority")
    pair = authority.pair("package")
    files = arguments.directory / "package"
    files.mkdir()
    [archive] = (ROOT / "target/debian").glob("scorefront_*.deb")
    machine = Container(stack, "debian", arguments.bases.systemd(), "/lib/systemd/systemd",
                        options=[*MACHINE, "--volume", f"{archive}:/scorefront.deb:ro", "--volume", f"{files}:/files:ro"],
                        networks=[(network, 10)])
    on = Machine(machine)
    wait_until("systemd runs", lambda: on.tries("systemctl", "is-system-running")[1].strip() == "running")
    is_installed(on)
    (files / "tables.toml").write_text(TABLES)
    (files / "cert.pem").write_bytes(pair.cert.read_bytes())
    (files / "key.pem").write_bytes(pair.key.read_bytes())
    for name in ("cert.pem", "key.pem"):
        on("install", "--owner=scorefront", "--mode=0600", f"/files/{name}", f"/etc/scorefront/certs/{name}")
    on("sh", "-c", "cat /files/tables.toml >> /etc/scorefront/scorefront.toml")
    is_run(on, machine, authority)
    goes_again(on)


class Machine:
    """Words for its shell."""

    def __init__(self, container):
        self.container = container

    def tries(self, *words, timeout=60):
        finished = self.container.execute(*words, timeout=timeout)
        return finished.returncode, finished.stdout + finished.stderr

    def __call__(self, *words, timeout=60):
        status, said = self.tries(*words, timeout=timeout)
        expect(status == 0, f"`{' '.join(words)}` exits with {status}:\n{said}\n{self.log() if status else ''}")
        return said

    def log(self):
        return self.tries("journalctl", "--no-pager", "--lines", "30", "--unit", "scorefront")[1]

    def shows(self, what):
        return self("systemctl", "show", "--property", what, "--value", "scorefront").strip()


def is_installed(on):
    on("dpkg", "--install", "/scorefront.deb")
    listed = on("dpkg", "--listfiles", "scorefront").split()
    for file in ("/usr/bin/scorefront", "/etc/scorefront/scorefront.toml", "/usr/share/man/man1/scorefront.1.gz",
                 "/usr/share/man/man1/scorefront-serve.1.gz", "/usr/share/bash-completion/completions/scorefront",
                 "/usr/share/zsh/vendor-completions/_scorefront", "/usr/share/fish/vendor_completions.d/scorefront.fish",
                 "/usr/share/doc/scorefront/operations.md", "/usr/share/doc/scorefront/copyright"):
        expect(file in listed, f"the package has no {file}:\n" + "\n".join(listed))
    expect(any(file.endswith("/systemd/system/scorefront.service") for file in listed), "the package has no unit")
    expect(on("getent", "passwd", "scorefront").split(":")[5:] == ["/nonexistent", "/usr/sbin/nologin\n"], "its user")
    for path, said in (("/etc/scorefront", "750 scorefront scorefront"), ("/etc/scorefront/certs",
                                                                         "750 scorefront scorefront")):
        expect(on("stat", "--format", "%a %U %G", path).strip() == said, f"{path} is {on('stat', path)}")
    expect("/etc/scorefront/scorefront.toml" in on("dpkg-query", "--show", "--showformat", "${Conffiles}", "scorefront"),
           "an upgrade would overwrite its configuration")
    on("sh", "-c", "zcat /usr/share/man/man1/scorefront.1.gz | grep -q '^.TH scorefront'")
    expect(on.tries("systemctl", "is-enabled", "scorefront")[1].strip() == "disabled", "it is enabled without being asked")
    on("systemd-analyze", "verify", "--man=no", "scorefront.service")
    # The exit status says whether the threshold is kept.
    rating = on("systemd-analyze", "security", f"--threshold={EXPOSURE}", "--no-pager", "scorefront.service")
    exposure = re.search(r"exposure level for scorefront.service: ([\d.]+)", rating)[1]
    done(f"the package: user, files, manual, completions; exposure of the unit by systemd-analyze: {exposure}")


def is_run(on, machine, authority):
    on("systemctl", "start", "scorefront")
    expect(on.shows("ActiveState") == "active", "it is not active when start returns")
    expect(on("scorefront", "health", "--config", "/etc/scorefront/scorefront.toml") == "ready\n", "it is not ready")
    expect(on.shows("User") == "scorefront" and on.shows("StatusErrno") == "0", "it runs as somebody else")
    said = must(["curl", "-sS", "--max-time", "10", "--cacert", authority.pem, "--resolve", f"{CNAME}:443:{machine.address}",
                 f"https://{CNAME}/nowhere"])
    expect(json.loads(said)["error"]["code"] == "NotFound", f"port 443 answers {said}")
    on("systemctl", "reload", "scorefront")
    on("sh", "-c", "cp -p /etc/scorefront/certs/key.pem /tmp/ && echo nothing > /etc/scorefront/certs/key.pem")
    status, said = on.tries("systemctl", "reload", "scorefront")
    expect(status != 0, "a reload that took nothing is a success")
    expect("NOT TAKEN" in on.log(), f"the journal does not say what was not taken:\n{on.log()}")
    expect(on.shows("ActiveState") == "active", "a reload that took nothing ended it")
    on("cp", "-p", "/tmp/key.pem", "/etc/scorefront/certs/key.pem")
    on("systemctl", "reload", "scorefront")
    done("run by systemd: port 443 without root, ready when start returns; a reload fails with the reason, and it serves on")


def goes_again(on):
    """The watchdog, then a stop; both are seen from systemd."""
    on("sh", "-c", "mkdir -p /run/systemd/system/scorefront.service.d && printf '[Service]\\nWatchdogSec=1s\\nTimeoutAbortSec=1s\\n'"
                   " > /run/systemd/system/scorefront.service.d/soon.conf && systemctl daemon-reload")
    on("systemctl", "restart", "scorefront")
    first = on.shows("MainPID")
    # Twice as long as the watchdog waits.
    time.sleep(2)
    expect(on.shows("MainPID") == first, f"the watchdog ends what is well:\n{on.log()}")
    on("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "scorefront")
    wait_until("the watchdog has it started anew",
               lambda: on.shows("ActiveState") == "active" and on.shows("MainPID") not in ("0", first))
    expect("Watchdog timeout" in on.log(), f"it was not the watchdog:\n{on.log()}")
    on("systemctl", "stop", "scorefront")
    expect(on.shows("Result") == "success", f"stopping it is a failure: {on.shows('Result')}\n{on.log()}")
    expect("stopped; nothing was cut" in on.log(), f"the journal says\n{on.log()}")
    on("dpkg", "--install", "/scorefront.deb")
    expect("[[cname]]" in on("cat", "/etc/scorefront/scorefront.toml"), "an upgrade overwrote the configuration")
    on("dpkg", "--purge", "scorefront")
    status, _ = on.tries("test", "-e", "/etc/scorefront/certs/key.pem")
    expect(status == 0, "purging it took an operator's key")
    done("the watchdog starts one that hangs anew, a stop drains; an upgrade keeps the configuration, a purge the certificates")

