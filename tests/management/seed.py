#!/usr/bin/env python3
"""From a certificate to a scoring call over https, with the commands that an operator would type, against a real model
server.

    cargo build && python3 tests/management/seed.py [--only PATH …] [--binary FILE]

  * new: a cluster is made with its certificate, is asked for its address, and gets a service, whose scoring URI has
    https and the CNAME by itself; it is scored by curl, by the lines that `service usage` prints, as pasted, and by
    `service run`;
  * patch: a cluster without a certificate is given one as raw PEM text over the REST API while threads score over http
    without a pause. No call is lost: before, http is answered with 200, afterwards with 403, that says where to call,
    or 308; https with 200;
  * set: the same by `env set`;
  * local: a front end for development, without a certificate and without keys;
  * wrong: what `env create` refuses, in the original's words.

The model server is azureml-inference-server-http, from tests/protocols/requirements/azureml.txt.
"""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time

from support import (ANSWER, CLUSTER, CNAME, GROUP, HERE, ROOT, SAMPLE, Authority, Caller, Load, check, done, expect,
                     free_ports, main,
                     model, must, replace, run, serial_served, serve, venv, wait_until)

SHOWN = ["id", "name", "state", "createdAt", "updatedAt", "scoringUri"]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
DATA = '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
SCORED = [10.2]
IRIS = "/api/v1/service/iris/score"


class Operator:
    """A shell in a directory of its own, in which `scorefront` is the program and one front end is meant."""

    def __init__(self, arguments, stack, name):
        self.directory, self.stack, self.binary = arguments.directory / name, stack, arguments.binary
        (self.directory / "bin").mkdir(parents=True)
        (self.directory / "bin/scorefront").symlink_to(arguments.binary)
        self.https, self.http, self.admin = free_ports(3)
        self.settings = {**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                         "HOME": str(self.directory)}

    def addresses(self):
        return ["--https", f"127.0.0.1:{self.https}", "--http", f"127.0.0.1:{self.http}", "--admin-listen",
                f"127.0.0.1:{self.admin}"]

    def types(self, *words):
        return run(["scorefront", *words], cwd=self.directory, env=self.settings)

    def does(self, *words):
        """What a command prints that has to succeed."""
        return must(["scorefront", *words], cwd=self.directory, env=self.settings)

    def pastes(self, line):
        """A line as it was printed, into a shell."""
        return must(["sh", "-c", line], cwd=self.directory, env=self.settings)

    def serves(self, environment):
        front = serve(self.stack, self.binary, self.directory / environment)
        expect((front.https, front.http) == (self.https, self.http), "it does not listen where env create was told")
        self.settings["SCOREFRONT_ADMIN"] = f"http://{front.admin_address}"
        return front

    def shows(self, service="iris"):
        shown = json.loads(self.does("service", "show", "realtime", "-n", service))
        expect(list(shown) == SHOWN, f"service show has the fields {list(shown)} instead of {SHOWN}")
        for field in ("createdAt", "updatedAt"):
            expect(re.fullmatch(TIME, shown[field]), f"{field} is {shown[field]}, which is no time in UTC")
        return shown

    def keys(self, service="iris"):
        said = self.does("service", "keys", "realtime", "-n", service)
        found = re.fullmatch(r"PrimaryKey: (\S+)\nSecondaryKey: (\S+)\n", said)
        expect(found, f"service keys says:\n{said}")
        return found.groups()


# A model server


def azmlinfsrv(stack, directory):
    """The address of a real one, as soon as it answers."""
    programs = venv("protocols-venvs/azureml", ROOT / "tests/protocols/requirements/azureml.txt")
    directory.mkdir()
    shutil.copy(HERE / "score.py", directory)
    [port] = free_ports(1)
    log = stack.enter_context(open(directory / "log", "wb"))
    process = subprocess.Popen([programs / "azmlinfsrv", "--entry_script", "score.py", "--port", str(port)],
                               cwd=directory, stdout=log,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    stack.callback(end_group, process)

    def answers():
        expect(process.poll() is None, f"azmlinfsrv ended:\n{(directory / 'log').read_text()[-2000:]}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False

    wait_until("azmlinfsrv answers", answers, 60)
    return f"http://127.0.0.1:{port}"


def end_group(process):
    """It has workers, which are of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


# new


def new(arguments, stack, authority):
    """The first page of the story: everything is there from the beginning."""
    operator, pair = Operator(arguments, stack, "new"), authority.pair("new")
    said = operator.does("env", "create", "-c", "-g", GROUP, "-n", CLUSTER, "--cert-cname", CNAME, "--cert-pem",
                         pair.cert,
                         "--key-pem", pair.key, *operator.addresses())
    for word in ("scorefront serve --env", "scorefront env show", "scorefront service create realtime", CNAME):
        expect(word in said, f"env create does not say what is next, {word!r}:\n{said}")
    expect_files(operator.directory / CLUSTER)
    front = operator.serves(CLUSTER)
    address = expect_address(operator)
    expect(serial_served(front.https, authority.context()) == pair.serial, "it serves another certificate")
    done(f"env create -c with a certificate; env show: publicIpAddress is {address}")

    replica = azmlinfsrv(stack, operator.directory / "replica")
    said = operator.does("service", "create", "realtime", "-n", "iris", "--replica", replica)
    uri = f"https://{CNAME}:{operator.https}{IRIS}"
    expect(uri in said, f"service create does not say the scoring URI {uri}:\n{said}")
    shown = operator.shows()
    expect((shown["name"], shown["state"], shown["scoringUri"]) == ("iris", "Succeeded", uri),
           f"service show says {shown}")
    by_id = json.loads(operator.does("service", "show", "realtime", "-i", shown["id"]))
    expect(by_id == shown, f"by its id, service show says {by_id} instead of {shown}")
    done(f"service create and show: {uri}")

    primary, secondary = operator.keys()
    for key in (primary, secondary):
        expect(curl(operator, authority, uri, address, key) == (200, SCORED), "curl does not score with a key")
    status, answer = curl(operator, authority, uri, address, "wrong")
    expect(status == 401, f"curl scores with a wrong key: {status} {answer}")
    done("curl scores by the scoring URI, with either key and no other")

    expect_usage(operator, authority, uri, primary)
    said = operator.does("service", "run", "realtime", "-n", "iris", "-d", DATA, "--cacert", authority.pem)
    expect(json.loads(said) == SCORED, f"service run says:\n{said}")
    request = operator.directory / "request.json"
    request.write_text(DATA)
    said = operator.does("service", "run", "realtime", "-i", shown["id"], "-d", "@request.json", "--cacert",
                         authority.pem)
    expect(json.loads(said) == SCORED, f"service run with a file says:\n{said}")
    failed = operator.types("service", "run", "realtime", "-n", "iris", "-d", DATA)
    expect(failed.returncode == 1, "service run trusts a certificate that nobody vouches for")
    done("service run scores, and verifies whom it scores with")

    new_keys(operator, authority, uri, address, primary, secondary)
    end(operator, front)


def expect_files(environment):
    for file, mode in (("scorefront.toml", None), (f"certs/{CNAME}/cert.pem", None), (f"certs/{CNAME}/key.pem", 0o600),
                       ("services", None), ("keys", 0o700)):
        expect((environment / file).exists(), f"env create made no {file}")
        found = (environment / file).stat().st_mode & 0o777
        expect(mode in (None, found), f"{file} has the mode {found:o}")


def expect_address(operator):
    """The step that the original's documentation forgot: where the CNAME has to lead."""
    shown = json.loads(operator.does("env", "show", "-g", GROUP, "-n", CLUSTER))
    address = shown["publicIpAddress"]
    expect(address == "127.0.0.1", f"publicIpAddress is {address}, and it listens on 127.0.0.1")
    systems = shown["containerService"]["systemServices"]
    fitting = [one for one in systems
               if (one["systemServiceType"], one["publicIpAddress"]) == ("ScoringFrontEnd", address)]
    expect(fitting, f"containerService.systemServices has no ScoringFrontEnd at {address}: {systems}")
    by_directory = json.loads(operator.does("env", "show", "--env", CLUSTER))
    expect(by_directory == shown, "env show says something else with --env")
    wrong = operator.types("env", "show", "-n", "another")
    expect(wrong.returncode == 1 and CLUSTER in wrong.stderr, f"env show -n another: {wrong.stdout}{wrong.stderr}")
    return address


def curl(operator, authority, uri, address, key):
    """Status and answer; --resolve stands for the record that leads the CNAME to the address."""
    said = must(["curl", "-sS", "--max-time", "20", "--cacert", authority.pem, "--resolve",
                 f"{CNAME}:{operator.https}:{address}",
                 "-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json", "--data-binary", DATA,
                 "-w", "\n%{http_code}", uri])
    body, status = said.rsplit("\n", 1)
    return int(status), json.loads(body)


def expect_usage(operator, authority, uri, key):
    said = operator.does("service", "usage", "realtime", "-n", "iris", "--cacert", authority.pem)
    for text in (uri, uri.replace("/score", "/swagger.json"), f"Authorization: Bearer {key}",
                 "Content-Type: application/json"):
        expect(text in said, f"service usage does not say {text!r}:\n{said}")
    lines = [line.strip() for line in said.splitlines()]
    for program in ("curl", "scorefront service run"):
        [line] = [line for line in lines if line.startswith(f"{program} ")] or [None]
        expect(line, f"service usage has no line for {program}:\n{said}")
        answer = operator.pastes(line)
        expect(json.loads(answer) == SCORED, f"as pasted, `{line}` says:\n{answer}")
    done("service usage: the lines for curl and for the command line score as pasted")


def new_keys(operator, authority, uri, address, primary, secondary):
    operator.does("service", "keys", "realtime", "-n", "iris", "--regen", "--key", "Primary")
    renewed, same = operator.keys()
    expect(renewed != primary and same == secondary, "keys --regen --key Primary did not change the primary key alone")
    found = [curl(operator, authority, uri, address, key)[0] for key in (renewed, secondary, primary)]
    expect(found == [200, 200, 401], f"the new key, the other one and the old one are answered with {found}")
    done("service keys --regen: the new key scores, the old one does not")


def end(operator, front):
    """What was made can be seen, and taken away again."""
    operator.does("service", "delete", "realtime", "-n", "iris")
    again = operator.types("service", "delete", "realtime", "-n", "iris")
    expect(again.returncode == 1 and "No such service" in again.stderr, f"deleted twice: {again.stdout}{again.stderr}")
    listed = json.loads(operator.does("env", "list", "-o", "json"))
    expect([one["name"] for one in listed] == [CLUSTER], f"env list says {listed}")
    running = operator.types("env", "delete", "-n", CLUSTER, "-y")
    expect(running.returncode == 1 and (operator.directory / CLUSTER).exists(),
           "env delete takes away what is being served")
    front.stop()
    operator.does("env", "delete", "-n", CLUSTER, "-y")
    expect(not (operator.directory / CLUSTER).exists(), "env delete leaves the environment there")
    done("service delete, env list, env delete")


# patch and set


def by_patch(operator, front, pair):
    """As Set-AzureRmMlOpCluster did, with raw PEM text."""
    ssl = {"status": "Enabled", "cert": pair.cert_text, "key": pair.key_text, "cname": CNAME}
    answer = front.admin().ask("PATCH", "/v1/env", {"globalServiceConfiguration": {"ssl": ssl}}).json
    expect_no_key(answer, pair)
    return answer


def by_set(operator, front, pair):
    said = operator.does("env", "set", "-g", GROUP, "-n", CLUSTER, "--ssl-status", "Enabled", "--ssl-cert-pem",
                         pair.cert,
                         "--ssl-key-pem", pair.key, "--ssl-cname", CNAME)
    answer = json.loads(said)
    expect_no_key(answer, pair)
    return answer


def expect_no_key(answer, pair):
    ssl = answer["globalServiceConfiguration"]["ssl"]
    expect((ssl["status"], ssl["cname"]) == ("Enabled", CNAME), f"the answer says {ssl}")
    expect("PRIVATE KEY" not in json.dumps(answer), "the answer has the private key")
    expect(ssl["cert"].strip() == pair.cert_text.strip(), "the answer has another certificate")


class Switching:
    """A cluster without a certificate, and threads that score over http without a pause while it gets one."""

    def __init__(self, arguments, stack, authority, name):
        self.authority, self.stack = authority, stack
        self.operator = Operator(arguments, stack, name)
        self.operator.does("env", "create", "-c", "-g", GROUP, "-n", CLUSTER, *self.operator.addresses(),
                           "--public-https-port", "443",
                           "--public-http-port", "80")
        self.front = self.operator.serves(CLUSTER)
        self.operator.does("service", "create", "realtime", "-n", "iris", "--replica", model(stack), "--replica",
                           model(stack),
                           "--max-queue-wait", "10s")
        self.expect_uri(f"http://127.0.0.1{IRIS}")
        self.key, _ = self.operator.keys()

    def expect_uri(self, uri):
        shown = self.operator.shows()
        expect(shown["scoringUri"] == uri, f"the scoring URI is {shown['scoringUri']} instead of {uri}")

    def call(self, kept, tls=None):
        """Scores in a thread: over a connection that is kept, or over a new one each time."""
        callers = {}
        port = self.front.https if tls else self.front.http

        def score(number):
            caller = callers.setdefault(number, Caller(port, tls))
            answer = caller.score("iris", self.key, None if tls else "127.0.0.1")
            if not kept:
                caller.close()
            return outcome(answer)

        return score

    def load(self):
        """Half of the threads keep their connections."""
        load = Load()
        self.stack.callback(load.stop)
        load.start("http", 2, self.call(kept=True))
        load.start("http", 2, self.call(kept=False))
        load.reach(200, "http")
        return load

    def add_https(self, load):
        load.start("https", 1, self.call(True, self.authority.context()))
        load.start("https", 1, self.call(False, self.authority.context()))


def outcome(answer):
    if answer.status == 200:
        return 200 if answer.body == ANSWER else f"another answer: {answer}"
    if answer.status in (403, 308) and answer.code == "HttpsRequired":
        return answer.status
    return str(answer)


def judge(load, sent, answered, before, after):
    """That http was answered with `before` until the change was sent, with `after` once it was answered, with one of them
    in between; and https always with 200."""
    for began, over, kind, found in load.calls:
        if kind == "https":
            wanted = (200,)
        elif over < sent:
            wanted = (before,)
        elif began > answered:
            wanted = (after,)
        else:
            wanted = (before, after)
        expect(found in wanted,
               f"a call over {kind}, sent {began - answered:+.3f} s from the answer to the change, got {found} instead "
                                f"of {' or '.join(map(str, wanted))}")
    return load.count("http"), load.count("https")


def switch_on(arguments, stack, authority, name, how):
    switching = Switching(arguments, stack, authority, name)
    operator, front, pair = switching.operator, switching.front, authority.pair(name)
    load = switching.load()
    sent = time.monotonic()
    how(operator, front, pair)
    answered = time.monotonic()
    switching.add_https(load)
    load.reach(100, "https")
    load.reach(200, "http")
    load.stop()
    counts = judge(load, sent, answered, 200, 403)
    expect(serial_served(front.https, authority.context()) == pair.serial, "it serves another certificate")
    uri = f"https://{CNAME}{IRIS}"
    switching.expect_uri(uri)
    refused = Caller(front.http).score("iris", switching.key)
    expect(uri in refused.json["error"]["message"], f"who calls over http is told something else than {uri}: {refused}")
    done(f"{name}: the certificate came under load: {counts[0]} calls over http and {counts[1]} over https, none lost")
    switch_to_redirect(switching, uri)
    switch_off(switching, name)
    check(arguments.binary, operator.directory / CLUSTER)
    front.stop()


def switch_to_redirect(switching, uri):
    file = switching.operator.directory / CLUSTER / "scorefront.toml"
    text = file.read_text()
    replace(file,
            re.sub(r"^\[frontend\]\n", '[frontend]\nhttp_when_tls = "redirect"\n',
                   re.sub(r"^http_when_tls.*\n", "", text, flags=re.M), flags=re.M))
    switching.operator.does("reload", "--env", CLUSTER)
    answer = Caller(switching.front.http).score("iris", switching.key)
    expect((answer.status, answer.fields.get("location")) == (308, uri),
           f"with http_when_tls = \"redirect\": {answer} {answer.fields}")


def switch_off(switching, name):
    """And back: who calls over https goes on."""
    load = switching.load()
    switching.add_https(load)
    load.reach(100, "https")
    sent = time.monotonic()
    if name == "set":
        switching.operator.does("env", "set", "--ssl-status", "Disabled")
    else:
        switching.front.admin().ask("PATCH", "/v1/env", {"globalServiceConfiguration": {"ssl": {"status": "Disabled"}}})
    answered = time.monotonic()
    load.reach(200, "http")
    load.stop()
    counts = judge(load, sent, answered, 308, 200)
    switching.expect_uri(f"http://127.0.0.1{IRIS}")
    done(f"{name}: TLS was disabled under load: {counts[0]} calls over http and {counts[1]} over https, none lost")


def patch(arguments, stack, authority):
    switch_on(arguments, stack, authority, "patch", by_patch)


def set_(arguments, stack, authority):
    switch_on(arguments, stack, authority, "set", by_set)


# local


def local(arguments, stack, _):
    operator = Operator(arguments, stack, "local")
    operator.does("env", "create", "-n", "anywhere")
    written = (operator.directory / "anywhere/scorefront.toml").read_text()
    for listener in ("https", "http"):
        expect(re.search(rf'^{listener}\s*= "127\.0\.0\.1:\d+"', written, re.M),
               f"in local mode {listener} is open to others:\n{written}")
    operator.does("env", "create", "-n", "dev", *operator.addresses())
    front = operator.serves("dev")
    shown = json.loads(operator.does("env", "show"))
    expect((shown["name"], shown["clusterType"]) == ("dev", "Local"), f"env show says {shown}")
    operator.does("service", "create", "realtime", "-n", "iris", "--replica", model(stack))
    uri = operator.shows()["scoringUri"]
    expect(uri == f"http://127.0.0.1:{operator.http}{IRIS}", f"the scoring URI is {uri}")
    said = must(["curl", "-sS", "--fail", "-H", "Content-Type: application/json", "--data-binary", SAMPLE.decode(),
                 uri])
    expect(said.encode() == ANSWER, f"curl without a key says:\n{said}")
    said = operator.does("service", "run", "realtime", "-n", "iris", "-d", DATA)
    expect(said.strip().encode() == ANSWER.strip(), f"service run says:\n{said}")
    usage = operator.does("service", "usage", "realtime", "-n", "iris")
    expect("Authorization" not in usage, f"service usage asks for a key where there is none:\n{usage}")
    front.stop()
    done("local: it scores over http on this machine, without a key")


# wrong


def wrong(arguments, stack, authority):
    operator, pair = Operator(arguments, stack, "wrong"), authority.pair("wrong")
    create = ("env", "create", "-c", "-g", GROUP, "-n", CLUSTER)
    cname, cert, key = ("--cert-cname", CNAME), ("--cert-pem", pair.cert), ("--key-pem", pair.key)
    other = authority.pair("wrong-other")
    for words, status, said in (
            ((*create, *cname, *cert), 2, "Certificate key file must be provided if certificate is provided."),
            ((*create, *cname, *key), 2, "Certificate file must be provided if certificate key file is provided."),
            ((*create, *cert, *key), 2, "Certificate CNAME must be provided if certificate is provided."),
            (("env", "create", "-n", CLUSTER, *cname, *cert, *key), 2, "-c"),
            (("env", "create", "-c", "-g", GROUP, "-n", "7"), 2, "name"),
            ((*create, *cname, *cert, "--key-pem", other.key), 1, "does not belong"),
            ((*create, "--cert-cname", "other.example.com", *cert, *key), 1, "other.example.com"),
            ((*create, *cname, "--cert-pem", "nowhere.pem", *key), 1, "nowhere.pem")):
        found = operator.types(*words)
        line = " ".join(map(str, words))
        expect(found.returncode == status,
               f"`scorefront {line}` exits with {found.returncode}, not {status}:\n{found.stdout}{found.stderr}")
        expect(said in found.stderr, f"`scorefront {line}` does not say {said!r}:\n{found.stderr}")
        left = sorted(path.name for path in operator.directory.iterdir() if path.name != "bin")
        expect(not left, f"`scorefront {line}` has left {left}")
    taken = operator.directory / CLUSTER
    taken.mkdir()
    (taken / "precious").write_text("mine")
    found = operator.types(*create)
    expect(found.returncode == 1 and [path.name for path in taken.iterdir()] == ["precious"],
           f"env create into a directory that is there: {found}")
    done("wrong: env create refuses in the original's words, and leaves nothing behind")


PATHS = {"new": new, "patch": patch, "set": set_, "local": local, "wrong": wrong}


def program(arguments, stack):
    authority = Authority(arguments.directory / "ca")
    for name, path in PATHS.items():
        if name in (arguments.only or PATHS):
            path(arguments, stack, authority)


def options(parser):
    parser.add_argument("--only", choices=PATHS, action="append", help="default: all")


if __name__ == "__main__":
    main(__doc__, program, options)
