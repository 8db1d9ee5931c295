#!/usr/bin/env python3
"""Twenty clients change twenty services at once, and somebody edits files meanwhile: nothing is lost, and no call fails.

    cargo build && python3 tests/management/clients.py [--seconds N] [--binary FILE]

While threads score on all services over https without a pause:

  * each client changes one setting of its own service again and again, without a precondition; each also adds one to a
    setting of the others' services, as programs do that read, change and write back with If-Match, and try again after
    412. In the end each service has the last of its own client's changes, and its counter is the number of accepted
    additions;
  * meanwhile two more have services come and go: one that was made scores as soon as that is answered, one that was
    taken away does not any more;
  * whoever reads keys while they are made anew, or the certificate while it is replaced, gets all of the old or all of
    the new;
  * a service's file is edited by hand (written beside its place and renamed) while it is changed through the API: a
    change with the ETag from before the edit gets 412 and leaves the edit as it is; one without a precondition comes
    after it, and keeps it with its comment; and at any rate each side's two settings, which belong together, are found
    together;
  * no scoring call is answered with anything but 200, from the first change to the last.
"""

import random
import threading
import time
import tomllib

from support import (CNAME, Authority, Caller, Failed, Load, check, done, expect, main, model, replace, serve,
                     wait_until,
                     write_environment)

CLIENTS = 20
CHANGES, ADDITIONS = 12, 8
SCORERS, VISITORS = 4, 2
# Of settings that are counted up, and hold nothing up at that height.
BASE = 60_000


def name_of(number):
    return f"model-{number:02}"


def start_load(front, tls, keys):
    """Every thread has a connection of its own, and goes round all services."""
    callers = [Caller(front.https, tls) for _ in range(SCORERS)]
    turns = [iter(()) for _ in range(SCORERS)]

    def score(number):
        service = next(turns[number], None)
        if service is None:
            turns[number] = iter(keys)
            service = next(turns[number])
        answer = callers[number].score(service, keys[service])
        return 200 if answer.status == 200 else str(answer)

    return Load().start("score", SCORERS, score)


def expect_no_call_failed(load, when):
    failed = [call[3] for call in list(load.calls) if call[3] != 200]
    expect(not failed, f"{len(failed)} of {load.count()} scoring calls failed {when}, the first with {failed[:1]}")


# Twenty at once


class Client:
    """One of the twenty. What goes wrong is kept for the end."""

    def __init__(self, admin, number):
        self.admin, self.number, self.random = admin, number, random.Random(number)
        self.added = dict.fromkeys(map(name_of, range(CLIENTS)), 0)
        self.stale, self.fault = 0, None

    def run(self):
        try:
            steps = ["change"] * CHANGES + ["add"] * ADDITIONS
            self.random.shuffle(steps)
            changes = iter(range(1, CHANGES + 1))
            for step in steps:
                if step == "change":
                    self.change(next(changes))
                else:
                    self.add(name_of(self.random.randrange(CLIENTS)))
        except (Failed, OSError) as error:
            self.fault = f"client {self.number}: {error}"

    def change(self, value):
        """Its own service's, come what may."""
        self.admin.ask("PUT", f"/v1/services/{name_of(self.number)}", {"maxQueue": 1000 + value}, status=202)

    def add(self, service):
        """Read, change, write back; again if somebody was faster."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            before = self.admin.ask("GET", f"/v1/services/{service}")
            after = {"scoringTimeoutMs": before.json["scoringTimeoutMs"] + 1}
            answer = self.admin.patiently("PUT", f"/v1/services/{service}", after, {"if-match": before.fields["etag"]})
            if answer.status == 202:
                self.added[service] += 1
                return
            expect(answer.status == 412 and answer.code in ("PreconditionFailed", "Overtaken"), f"{answer} instead of 202 or 412")
            self.stale += 1
        raise Failed(f"{service} could not be changed with If-Match within a minute")


class Visitor:
    """Makes a service, scores with it, and takes it away, until the others are done. Its name is the last of all, so
    that whoever reads the files of all services comes to it late."""

    def __init__(self, front, tls, number, replicas):
        self.front, self.tls, self.name, self.replicas = front, tls, f"visiting-{number}", replicas
        self.over, self.visits, self.fault = threading.Event(), 0, None

    def run(self):
        try:
            while not self.over.is_set():
                self.visit()
                self.visits += 1
        except (Failed, OSError) as error:
            self.fault = f"visitor {self.name}: {error}"

    def visit(self):
        admin, caller = self.front.admin(), Caller(self.front.https, self.tls)
        admin.create(self.name, self.replicas)
        key = admin.keys(self.name)["primaryKey"]
        for wanted in (200, 404):
            answer = caller.score(self.name, key)
            expect(answer.status == wanted, f"{answer} instead of {wanted}")
            if wanted == 200:
                admin.ask("DELETE", f"/v1/services/{self.name}")
        caller.close()


def change_all_at_once(front, tls, replicas):
    clients = [Client(front.admin(), number) for number in range(CLIENTS)]
    visitors = [Visitor(front, tls, number, replicas) for number in range(VISITORS)]
    threads = [threading.Thread(target=one.run, daemon=True) for one in (*clients, *visitors)]
    for thread in threads:
        thread.start()
    for thread in threads[:CLIENTS]:
        thread.join(180)
    for visitor in visitors:
        visitor.over.set()
    for thread in threads[CLIENTS:]:
        thread.join(60)
    for one in (*clients, *visitors):
        expect(one.fault is None, one.fault)
    for name in map(name_of, range(CLIENTS)):
        service = front.admin().get(f"/v1/services/{name}")
        expect(service["maxQueue"] == 1000 + CHANGES,
               f"{name} has maxQueue {service['maxQueue']}: its last change is lost")
        additions = sum(client.added[name] for client in clients)
        found = service["scoringTimeoutMs"] - BASE
        expect(found == additions, f"{additions} additions to {name} were accepted, and {found} are there")
    stale = sum(client.stale for client in clients)
    expect(stale > 0, "nobody ever was too late: this shows nothing of If-Match")
    done(f"{CLIENTS} clients, {CLIENTS * (CHANGES + ADDITIONS)} changes of {CLIENTS} services: all there"
         f" ({stale} tries were too late)")
    done(f"{sum(visitor.visits for visitor in visitors)} services came and went meanwhile")


# Readers


def read_while_it_changes(front, pairs, replicas, seconds):
    """Nobody gets a key that is not known for a moment, or the certificate of one pair with the key of another."""
    admin, name = front.admin(), "keyed"
    admin.create(name, replicas)
    over, faults, reads = threading.Event(), [], []

    def reader(read):
        def loop():
            try:
                while not over.is_set():
                    read()
                    reads.append(read)
            except (Failed, OSError) as error:
                faults.append(str(error))
        return loop

    def read_keys():
        keys = admin.keys(name)
        expect(all(keys.values()), f"while a key of {name} was made anew, its keys were {keys}")

    def read_pair():
        kept = admin.ask("POST", "/v1/env/listKeys").json["sslConfiguration"]
        whole = any((pair.cert_text, pair.key_text) == (kept["cert"], kept["key"]) for pair in pairs)
        expect(whole,
               "while the certificate was replaced, listKeys had the certificate of one pair and the key of another")

    def read_environment():
        shown = admin.get("/v1/env")
        expect(shown["provisioningState"] == "Succeeded",
               f"while the certificate was replaced: {shown['provisioningErrors']}")

    threads = [threading.Thread(target=reader(read), daemon=True)
               for read in (read_keys, read_keys, read_pair, read_pair, read_environment)]
    for thread in threads:
        thread.start()
    until, changes = time.monotonic() + seconds, 0
    while time.monotonic() < until and not faults:
        changes += 1
        admin.ask("POST", f"/v1/services/{name}/regenerateKeys", {"keyType": ("Primary", "Secondary")[changes % 2]})
        pair = pairs[changes % 2]
        ssl = {"cert": pair.cert_text, "key": pair.key_text, "cname": CNAME}
        admin.ask("PATCH", "/v1/env", {"globalServiceConfiguration": {"ssl": ssl}})
    over.set()
    for thread in threads:
        thread.join(60)
    expect(not faults, "\n".join(faults))
    done(f"{len(reads)} reads amid {2 * changes} changes of keys and certificate: each whole")


# By hand


def stale_change_leaves_an_edit_alone(front, environment, rounds=10):
    """The edit is not waited for: a change has to see what is on the disk, whatever is served yet."""
    admin, file = front.admin(), environment / "services" / f"{name_of(0)}.toml"
    for number in range(rounds):
        tag = admin.ask("GET", f"/v1/services/{name_of(0)}").fields["etag"]
        edited = with_setting(file.read_text(), "max_requests_in_flight", BASE + number)
        replace(file, edited)
        answer = admin.patiently("PUT", f"/v1/services/{name_of(0)}", {"maxQueue": 7}, {"if-match": tag})
        expect(answer.status == 412, f"the file was edited after its ETag was given, and yet: {answer}")
        expect(file.read_text() == edited, "a change that got 412 has changed the file")
        wait_until("the edit is served",
                   lambda: admin.get(f"/v1/services/{name_of(0)}").get("maxRequestsInFlight") == BASE + number)
    done(f"{rounds} edits by hand: a change with an older ETag gets 412, and the edit stays as it is")


def later_change_keeps_an_edit(front, environment, rounds=10):
    admin, file = front.admin(), environment / "services" / f"{name_of(1)}.toml"
    for number in range(rounds):
        comment = f"# edit {number} by hand"
        replace(file, with_setting(f"{comment}\n{file.read_text()}", "max_requests_in_flight", BASE + number))
        answer = admin.ask("PUT", f"/v1/services/{name_of(1)}", {"maxQueue": 2000 + number}, status=202)
        for setting, value in (("maxRequestsInFlight", BASE + number), ("maxQueue", 2000 + number)):
            expect(answer.json.get(setting) == value,
                   f"{setting} is {answer.json.get(setting)} instead of {value}: {answer}")
        expect(comment in file.read_text(), f"the comment {comment!r} is gone:\n{file.read_text()}")
    done(f"{rounds} edits by hand: a change that comes after one keeps it, with its comment")


def with_setting(text, key, value):
    """The file with a setting of the only service changed, as a person would."""
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} ")]
    at = next(number for number, line in enumerate(lines) if line.startswith("name "))
    return "\n".join([*lines[:at + 1], f"{key} = {value}", *lines[at + 1:]]) + "\n"


def storm(front, environment, seconds):
    """Both at once, without regard for each other: the hand has max_queue and max_requests_in_flight, the API the two
    others."""
    admin, name = front.admin(), name_of(2)
    file = environment / "services" / f"{name}.toml"
    over, answers, edits = time.monotonic() + seconds, {}, 0
    faults = []

    def change():
        number = 0
        try:
            while time.monotonic() < over:
                number += 1
                body = {"scoringTimeoutMs": BASE + number, "maxBodyBytes": 1_000_001 + number}
                headers = {"if-match": admin.ask("GET", f"/v1/services/{name}").fields["etag"]} if number % 2 else {}
                answer = admin.patiently("PUT", f"/v1/services/{name}", body, headers)
                answers[answer.status] = answers.get(answer.status, 0) + 1
                expect(answer.status in (202, 412), f"{answer} instead of 202 or 412")
        except (Failed, OSError) as error:
            faults.append(str(error))

    threads = [threading.Thread(target=change, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    while time.monotonic() < over:
        edits += 1
        text = file.read_text()
        expect_pairs(tomllib.loads(text), f"the file, read at edit {edits}")
        replace(file,
                with_setting(with_setting(text, "max_queue", 3000 + edits), "max_requests_in_flight", BASE + edits))
        time.sleep(random.uniform(0, 0.15))
    for thread in threads:
        thread.join(60)
    expect(not faults, faults[0] if faults else "")
    expect(answers.get(202), f"no change was accepted while the file was edited: {answers}")
    settle(front, file, name)
    done(f"{edits} edits by hand amid {sum(answers.values())} changes ({answers.get(412, 0)} answered 412): each whole or"
         " not there")


def expect_pairs(document, where):
    [service] = document["service"]
    one, other = service["max_queue"] - 3000, service["max_requests_in_flight"] - BASE
    expect(one == other, f"{where}: half of an edit by hand, {one} and {other}:\n{document}")
    one = to_milliseconds(service["scoring_timeout"]) - BASE
    other = size(service["max_body"]) - 1_000_001
    expect(one == other, f"{where}: half of a change, {one} and {other}:\n{document}")


def size(text):
    """Bytes of a size as the front end writes it: in the largest unit that it is a multiple of."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    raise Failed(f"{text} is no size")


def to_milliseconds(text):
    return int(text[:-2]) if text.endswith("ms") else int(text[:-1]) * 1000


def settle(front, file, name):
    """What is on the disk in the end is what is served."""
    document = tomllib.loads(file.read_text())
    expect_pairs(document, "the file in the end")
    [written] = document["service"]

    def is_served():
        served = front.admin().get(f"/v1/services/{name}")
        return (served["maxQueue"], served["maxRequestsInFlight"], served["scoringTimeoutMs"]) == (
            written["max_queue"], written["max_requests_in_flight"], to_milliseconds(written["scoring_timeout"]))

    wait_until("what is on the disk is served", is_served)


def program(arguments, stack):
    authority = Authority(arguments.directory / "ca")
    pairs = [authority.pair("one"), authority.pair("two")]
    environment = write_environment(arguments.directory / "env", pair=pairs[0],
                                    more='\n[defaults]\nmax_queue_wait = "10s"\n')
    front = serve(stack, arguments.binary, environment)
    admin, replicas = front.admin(), [model(stack), model(stack)]
    for name in map(name_of, range(CLIENTS)):
        admin.create(name, replicas, scoringTimeoutMs=BASE, maxQueue=1000)
    keys = {name: admin.keys(name)["primaryKey"] for name in map(name_of, range(CLIENTS))}
    load = start_load(front, authority.context(), keys)
    stack.callback(load.stop)
    load.reach(2 * CLIENTS)

    change_all_at_once(front, authority.context(), replicas)
    expect_no_call_failed(load, "while twenty clients changed twenty services")
    read_while_it_changes(front, pairs, replicas, arguments.seconds)
    stale_change_leaves_an_edit_alone(front, environment)
    later_change_keeps_an_edit(front, environment)
    admin.ask("PUT", f"/v1/services/{name_of(2)}",
              {"maxQueue": 3000, "scoringTimeoutMs": BASE, "maxBodyBytes": 1_000_001}, status=202)
    file = environment / "services" / f"{name_of(2)}.toml"
    replace(file, with_setting(file.read_text(), "max_requests_in_flight", BASE))
    storm(front, environment, arguments.seconds)
    load.reach(2 * CLIENTS)
    load.stop()
    expect_no_call_failed(load, "while files were edited")
    front.expect_running()
    check(arguments.binary, environment)
    front.stop()
    done(f"{load.count()} scoring calls meanwhile, all answered with 200")


def options(parser):
    parser.add_argument("--seconds", type=float, default=8, help="of edits and changes at the same time; default: 8")


if __name__ == "__main__":
    main(__doc__, program, options)
