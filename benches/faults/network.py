"""Network namespaces for faults.py: one of this run's own, and one for a replica whose packets can be dropped.

Both are without a name, so that they, their addresses and their rules are gone with the last process in them, however
that ended. Needs root or user namespaces, ip, iptables or nft, unshare and nsenter (Debian: iproute2 iptables util-linux).
"""

import os
import shutil
import subprocess
import sys
import time

# What link between the two there is. Nothing of it can be seen from outside.
HERE, THERE = "10.231.0.1", "10.231.0.2"
INSIDE = "--inside-own-network"


def enter_own():
    """Begins this program anew in a network of its own, in which there is nothing but loopback; the process stays the same."""
    if INSIDE in sys.argv:
        sys.argv.remove(INSIDE)
        run("ip", "link", "set", "lo", "up")
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--net", "--", sys.executable, *sys.argv, INSIDE]
    if subprocess.run([*command[:command.index("--")], "true"], capture_output=True, timeout=10).returncode:
        raise SystemExit("no network namespace can be made here; run this as root, or where users may make some")
    sys.stdout.flush()
    os.execvp(command[0], command)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


class Remote:
    """A second network, reached at [`THERE`] as if over a wire."""

    def __init__(self, stack):
        # Ends by itself once nobody holds the other end of its input.
        self.holder = subprocess.Popen(["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        stack.callback(self.end)
        deadline = time.monotonic() + 10
        while self.network(self.holder.pid) == self.network("self"):
            if self.holder.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("no second network namespace can be made")
            time.sleep(0.01)
        # Gone with either end, but not before the kernel gets to it: hence by hand in `end`.
        run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(self.holder.pid))
        run("ip", "address", "add", f"{HERE}/30", "dev", "here")
        run("ip", "link", "set", "here", "up")
        for command in (["link", "set", "lo", "up"], ["address", "add", f"{THERE}/30", "dev", "there"],
                        ["link", "set", "there", "up"]):
            run(*self.inside("ip", *command))

    @staticmethod
    def network(process):
        return os.readlink(f"/proc/{process}/ns/net")

    def inside(self, *command):
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--", *map(str, command)]

    def drop(self, is_on):
        """Has every packet dropped, in both directions and without a word; or no longer."""
        if shutil.which("iptables"):
            for chain in ("INPUT", "OUTPUT"):
                run(*self.inside("iptables", "-w", "-I" if is_on else "-D", chain, "-j", "DROP"))
        elif is_on:
            run(*self.inside("nft", "add table ip faults"))
            for hook in ("input", "output"):
                run(*self.inside("nft", f"add chain ip faults {hook} {{ type filter hook {hook} priority 0; policy drop; }}"))
        else:
            run(*self.inside("nft", "delete table ip faults"))

    def end(self):
        subprocess.run(["ip", "link", "delete", "here"], capture_output=True, timeout=10)
        self.holder.stdin.close()
        try:
            self.holder.wait(5)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            self.holder.wait()
