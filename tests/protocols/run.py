#!/usr/bin/env python3
"""Every protocol preset against the server it is named after, through the front end over TLS.

    cargo build && python3 tests/protocols/run.py [--only PROTOCOL …] [--binary FILE] [--venvs FOLDER]

The servers come from PyPI at pinned versions, but for TensorFlow Serving, which is nowhere to be had and is a stub of
its documented interface. The services are those of docs/protocols.md as they stand there. Everything a server is asked
is asked twice, of itself and through the front end, and has to be answered alike; and what it is known to do while it
loads, works or fails is measured. A server that cannot be installed or started is a failure.
"""

import argparse
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
sys.dont_write_bytecode = True

from fixture import CNAME, ROOT, Results, default_binary, front_end, write_certificates  # noqa: E402
from servers import ENDED, JSON, MODELS, REFUSED, SERVERS, SILENT  # noqa: E402

START_TIMEOUT = 60
# Fields that belong to one answer: who made it, when, and under which id.
OWN_FIELDS = {"date", "server", "connection", "keep-alive", "transfer-encoding", "content-length", "server-timing",
              "x-ms-request-id", "x-ms-client-request-id", "azureml-model-deployment", "x-request-id",
              "x-ms-run-fn-exec-ms"}


def install(server, venvs):
    """The server's virtual environment, made anew if its requirements changed; and how long that took."""
    begun, venv = time.monotonic(), venvs / server.protocol
    requirements = HERE / "requirements" / f"{server.protocol}.txt"
    if server.stub:
        return venv, 0.0
    done = venv / "installed.txt"
    if not done.exists() or done.read_bytes() != requirements.read_bytes():
        run([sys.executable, "-m", "venv", "--clear", venv])
        # Everything is pinned, so that nothing is left to resolve.
        run([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile", "-r",
             requirements])
        shutil.copy(requirements, done)
    return venv, time.monotonic() - begun


def run(command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout[-2000:]}"


@contextmanager
def process_group(command, log, **options):
    """A server and what it starts: all of it ends with the block."""
    with open(log, "wb") as output:
        started = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield started
    finally:
        try:
            os.killpg(started.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        started.wait()


def start(server, venv, folder, port, loads):
    folder.mkdir()
    command, settings = server.start(venv, folder, port)
    environment = {**os.environ, "PYTHONPATH": str(MODELS), "MODEL_LOADS": loads, **settings}
    return process_group(command, folder.parent / f"{folder.name}.log", cwd=folder, env=environment)


class Asker:
    """Asks one server: itself, or through the front end if there is a context of TLS."""

    def __init__(self, port, prefix="", tls=None):
        self.port, self.prefix, self.tls = port, prefix, tls

    def connect(self, timeout=15):
        connection = http.client.HTTPConnection(CNAME, self.port, timeout=timeout)
        tcp = socket.create_connection(("127.0.0.1", self.port), timeout)
        connection.sock = self.tls.wrap_socket(tcp, server_hostname=CNAME) if self.tls else tcp
        return connection

    def ask(self, path, body=None, kind=JSON, timeout=15):
        connection = self.connect(timeout)
        try:
            connection.request("GET" if body is None else "POST", path, body, {} if body is None else
                               {"content-type": kind})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in OWN_FIELDS}
            return answer.status, answer.read(), fields
        finally:
            connection.close()


def status(server, direct):
    """What the health path says, or how it fails to."""
    try:
        return direct.ask(server.health, timeout=0.4)[0]
    except ConnectionError:
        return REFUSED
    except (TimeoutError, http.client.HTTPException):
        return SILENT


def wait_until_it_scores(server, direct, process):
    """Everything the health path said until the model answered: health is what is tried, so it is not believed."""
    said, deadline = [], time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        said.append(status(server, direct))
        try:
            if direct.ask(server.score, server.body([[2, 1]]), timeout=0.4)[0] == 200:
                return said
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"it does not score; it said {list(dict.fromkeys(said))}")


def same(own, passed):
    assert own[0] == passed[0], f"{own[0]} became {passed[0]}: {passed[1][:300]}"
    assert own[1] == passed[1], f"{own[1][:300]} became {passed[1][:300]}"
    assert own[2] == passed[2], f"{own[2]} became {passed[2]}"
    return own


def scores(server, direct, behind):
    rows = [[2, 1], [5.5, -3]]
    answer = same(direct.ask(server.score, server.body(rows)), behind.ask("score", server.body(rows)))
    assert answer[0] == 200 and server.sums(answer[1]) == [3.0, 2.5], answer
    return "".join(answer[1].decode().split())[:60]


def shows_health(server, direct, behind):
    answer = same(direct.ask(server.health), behind.ask(""))
    assert answer[0] == 200 and server.healthy in answer[1], answer
    return f"{answer[0]} {' '.join(answer[1].decode().split())}"


def passes_paths_below_and_queries(server, direct, behind):
    below, expected = server.below
    answer = same(direct.ask(f"{server.score}{below}", server.body([[2, 1]])),
                  behind.ask(f"score{below}", server.body([[2, 1]])))
    assert answer[0] == expected, answer
    answer = same(direct.ask(f"{server.score}?a=1", server.body([[2, 1]])),
                  behind.ask("score?a=1", server.body([[2, 1]])))
    assert answer[0] == 200, answer
    return f"{below} {expected}, ?a=1 200"


def passes_the_models_error(server, direct, behind):
    answer = same(direct.ask(server.score, server.body([[-1, 0]])), behind.ask("score", server.body([[-1, 0]])))
    assert answer[0] == server.error, answer
    return f"{answer[0]}, {len(answer[1])} bytes of {answer[2].get('content-type')}"


def passes_other_content(server, direct, behind):
    kind, body, expected, echoed = server.other
    answer = same(direct.ask(server.score, body, kind), behind.ask("score", body, kind))
    assert answer[0] == expected and echoed in (None, answer[1]), answer
    return f"{kind} {answer[0]}"


def answers_while_busy(server, direct, _behind):
    """Two calls of a second at once, and the health path in the middle of the first."""
    ended = {}

    def call(name, delay, ask):
        time.sleep(delay)
        answer = ask()
        ended[name] = time.monotonic()
        assert answer[0] == 200, answer

    slow = lambda: direct.ask(server.score, server.body([[-2, 1]]))  # noqa: E731
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, "first", 0, slow), pool.submit(call, "second", 0.1, slow),
                 pool.submit(call, "health", 0.3, lambda: direct.ask(server.health))]
        for one in calls:
            one.result()
    found = (ended["health"] < min(ended["first"], ended["second"]) - 0.2,
             abs(ended["first"] - ended["second"]) < 0.6)
    expected = (server.answers_while_busy, server.parallel)
    assert found == expected, f"(health answers, calls in parallel) is {found}, known as {expected}"
    return (f"health {'answers' if found[0] else 'waits'}, calls run {'at once' if found[1] else 'one after another'}")


def keeps_connections(server, direct, _behind):
    connection = direct.connect()
    for _ in range(2):
        connection.request("POST", server.score, server.body([[2, 1]]), {"content-type": JSON})
        answer = connection.getresponse()
        answer.read()
        if not server.keeps_connections:
            assert answer.getheader("connection") == "close", answer.getheaders()
            return "closes after every answer"
        assert connection.sock, "it closed"
    connection.close()
    return "stays open"


def check_server(server, ready, directory, ports, target, results):
    """All checks of one server; those that need it running fail as one if it does not start."""
    def check(what, ask):
        results.check(f"{server.protocol:10} {what}", ask)

    with ExitStack() as stack:
        direct, tls = Asker(ports[0]), ssl.create_default_context(cafile=str(target.ca))
        behind = Prefixed(target.port, f"/api/v1/service/{server.protocol}/", tls)

        def starts():
            if server.program:
                assert shutil.which(server.program), f"there is no {server.program} on this machine"
            venv, took = ready.result()
            begun = time.monotonic()
            # Beside it one whose model cannot be loaded: it is looked at last, when it has made up its mind.
            stack.enter_context(start(server, venv, directory / f"{server.protocol}-broken", ports[1], "never"))
            process = stack.enter_context(start(server, venv, directory / server.protocol, ports[0], "1.5"))
            said = wait_until_it_scores(server, direct, process)
            words = ", ".join(str(word) for word in dict.fromkeys(said))
            # The last may be of a model that was loaded by then.
            assert set(said[:-1]) <= server.loading, f"while it loaded, health said {words}; known is {server.loading}"
            assert 200 not in server.loading or said.count(200) > 1, f"health said no 200 too early, but {words}"
            return (f"installed in {took:.1f} s, scores after {time.monotonic() - begun:.1f} s; "
                    f"until then health said {words}")

        failures = results.failures
        check("starts", starts)
        if results.failures > failures:
            log = directory / f"{server.protocol}.log"
            print(log.read_text(errors="replace")[-3000:] if log.exists() else "")
            return
        for what, ask in (("scores", scores), ("shows its health", shows_health),
                          ("passes paths and queries", passes_paths_below_and_queries),
                          ("passes the model's error", passes_the_models_error),
                          ("passes other content", passes_other_content),
                          ("knows its models", knows_its_models),
                          ("busy", answers_while_busy), ("connections", keeps_connections)):
            check(what, lambda ask=ask: ask(server, direct, behind))
        log = directory / f"{server.protocol}-broken.log"
        check("cannot load", lambda: cannot_load(server, Asker(ports[1]), log))


class Prefixed(Asker):
    """A service of the front end."""

    def ask(self, path, body=None, kind=JSON, timeout=15):
        return super().ask(self.prefix + path, body, kind, timeout)


def cannot_load(server, direct, log):
    """What a health check sees of a server whose model cannot be loaded, once it has given the model up."""
    deadline = time.monotonic() + START_TIMEOUT
    while (wrong := unlike_known_when_broken(server, direct, log)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not wrong, wrong
    if server.broken == ENDED:
        return "there is no server any more"
    answer = direct.ask(server.health)
    return f"health says {answer[0]} {' '.join(answer[1].decode().split())}"


def unlike_known_when_broken(server, direct, log):
    """In what the server whose model cannot be loaded is not (yet) as it is known; None when it is."""
    # What the model raised, so that nothing else is taken for it.
    said = log.read_text(errors="replace")
    if not server.stub and "no such file: model.bin" not in said:
        return f"the model's own error is not in the log: {said[-1000:]}"
    found = status(server, direct)
    if server.broken == ENDED:
        return None if found in (REFUSED, SILENT) else f"health is {found}, known is no server"
    if found in (REFUSED, SILENT):
        return f"health is {found}, known as {server.broken}"
    answer = direct.ask(server.health)
    if answer[0] == server.broken[0] and server.broken[1] in answer[1]:
        return None
    return f"{answer}, known as {server.broken}"


def knows_its_models(server, direct, _behind):
    """What is said of a model that is not there, where the paths name it."""
    if "iris" not in server.score:
        return "the paths name none"
    score = direct.ask(server.score.replace("iris", "nope"), server.body([[2, 1]]))
    health = direct.ask(server.health.replace("iris", "nope"))
    expected = 404 if "iris" in server.health else 200
    assert (score[0], health[0]) == (404, expected), (score, health)
    return f"of another, scoring says {score[0]} and health {health[0]}"


def services(ports):
    """The services of docs/protocols.md, each with the port of its server in place of its replicas."""
    page = (ROOT / "docs/protocols.md").read_text()
    tables = {re.search(r'^name = "(.*)"', table, re.M)[1]: table
              for table in re.findall(r"^```toml\n(.*?)^```", page, re.S | re.M)}
    assert set(tables) == {server.protocol for server in SERVERS}, f"docs/protocols.md has {sorted(tables)}"
    return "[defaults]\nauth = false\n" + "".join(
        re.sub(r"^replicas = .*$", f'replicas = ["http://127.0.0.1:{ports[name]}"]', table, flags=re.M)
        for name, table in tables.items())


def free_ports(count, each=8):
    """Starts of runs of ports that were free, below those that port 0 becomes."""
    found, port = [], 20_000 + os.getpid() % 8_000
    while len(found) < count:
        port += each
        try:
            for offset in range(each):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        found.append(port)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[server.protocol for server in SERVERS], action="append", help="default: all")
    parser.add_argument("--binary", type=Path, default=None, help="default: target/release or target/debug")
    parser.add_argument("--venvs", type=Path, default=None,
                        help="where the servers are installed, for the next run too; default: in the target directory")
    arguments = parser.parse_args()
    binary, results, begun = arguments.binary or default_binary(), Results(), time.monotonic()
    chosen = [server for server in SERVERS if server.protocol in (arguments.only or server.protocol)]
    venvs = arguments.venvs or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "protocols-venvs"
    venvs.mkdir(parents=True, exist_ok=True)
    found = free_ports(2 * len(SERVERS))
    ports = {server.protocol: found[2 * index:2 * index + 2] for index, server in enumerate(SERVERS)}
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        directory = Path(directory)
        write_certificates(directory)
        installed = {server.protocol: pool.submit(install, server, venvs.resolve()) for server in chosen}
        tables = services({name: own for name, (own, _) in ports.items()})
        with front_end(binary.resolve(), directory, tables) as target:
            for server in chosen:
                check_server(server, installed[server.protocol], directory, ports[server.protocol], target, results)
    print(f"{time.monotonic() - begun:.0f} s in all")
    sys.exit(results.failures > 0)


if __name__ == "__main__":
    main()
