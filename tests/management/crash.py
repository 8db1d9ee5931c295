#!/usr/bin/env python3
"""kill -9 at any instant of a change: what was answered is there, and what was not is there whole or not at all.

    cargo build && python3 tests/management/crash.py [--writes N] [--kills N] [--seed N] [--binary FILE]

Four writers change a cluster at once through its API: three of them services of their own (made, changed in several
settings, taken away, keys made anew), the fourth the certificate, the TLS status and the description together. The
front end is killed while they do, at a random instant, and every tenth time once more while it starts. After each kill
it is started anew, and

  * it serves, and `scorefront check` finds no error in the files;
  * the certificate of new handshakes is the right one of the two pairs, with its key and for its CNAME;
  * every service is what the last accepted change made it; a change that got no answer is there whole or not at all;
  * the keys that are shown are those that callers are let in with, and no others.

In the end nothing is left of what was cut off: no temporary file, no keys of a service that is gone.
"""

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field

from support import (CNAME, Answer, Authority, Caller, Failed, FrontEnd, check, done, expect, files_of, main, model,
                     serial_served, serve, write_environment)

WRITERS, NAMES_EACH = 3, 5
GONE = None


@dataclass
class Service:
    """What is known of a service: its settings as the API shows them, and its keys as far as they were told."""

    settings: dict
    # None: it is not known, because it was made by a change that got no answer.
    primary: str | None = None
    secondary: str | None = None

    def changed(self, **changes):
        return Service(**{**self.__dict__, **changes})


@dataclass
class Cluster:
    """What is known of the environment: all of it is changed by one PATCH."""

    pair: int
    status: str
    description: str


@dataclass
class Writer:
    """One who changes things of its own, so that what they are is known; `pending` is a change that got no answer."""

    random: random.Random
    known: dict
    pending: tuple | None = None


@dataclass
class Run:
    """What all share."""

    writes: int
    kills: int
    begun: int = 0
    accepted: int = 0
    # Changes without an answer, by what was found of them.
    whole: int = 0
    nothing: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    over: threading.Event = field(default_factory=threading.Event)
    faults: list = field(default_factory=list)
    seconds: list = field(default_factory=list)

    def take(self):
        """Whether there is another write to be made in this life of the front end."""
        with self.changed:
            if self.over.is_set() or self.begun >= self.writes:
                return False
            self.begun += 1
            self.changed.notify_all()
            return True

    def count_cut(self, is_as_before):
        self.nothing += is_as_before
        self.whole += not is_as_before

    def fault(self, sentence):
        with self.changed:
            self.faults.append(sentence)
            self.changed.notify_all()


# Changes. Each gives the request, and what is true afterwards; of an answer it takes what only that can tell.


def settings_of(draw, replicas):
    """Several settings that belong together: `number` is in each of them."""
    number = draw.randrange(1, 90_000)
    return {"scoringTimeoutMs": 1_000_000 + number, "maxQueue": 1_000 + number, "maxBodyBytes": 1 << 30 | number,
            "replicas": draw.sample(replicas, draw.randrange(1, len(replicas) + 1))}


def create(name, draw, replicas):
    settings = settings_of(draw, replicas)
    return ("POST", "/v1/services", {"name": name, **settings}), Service(settings)


def change(name, draw, replicas, service):
    settings = settings_of(draw, replicas)
    return ("PUT", f"/v1/services/{name}", settings), service.changed(settings=settings)


def remove(name):
    return ("DELETE", f"/v1/services/{name}", None), GONE


def regenerate(name, draw, service):
    which = draw.choice(["primary", "secondary"])
    chosen = f"chosen-{draw.randrange(10 ** 20):020}" if draw.random() < 0.5 else None
    body = {"keyType": which.capitalize()} | ({"keyValue": chosen} if chosen else {})
    return ("POST", f"/v1/services/{name}/regenerateKeys", body), service.changed(**{which: chosen})


def service_change(writer, replicas):
    """What to ask next, of which service, and what that makes of it."""
    draw = writer.random
    name = draw.choice(list(writer.known))
    service = writer.known[name]
    if service is GONE:
        return name, *create(name, draw, replicas)
    kind = draw.choices([change, remove, regenerate], [5, 2, 3])[0]
    if kind is change:
        return name, *change(name, draw, replicas, service)
    return name, *(remove(name) if kind is remove else regenerate(name, draw, service))


def cluster_change(writer, pairs):
    before = writer.known["cluster"]
    pair, status = 1 - before.pair, writer.random.choice(["Enabled", "Enabled", "Disabled"])
    after = Cluster(pair, status, f"number {writer.random.randrange(10 ** 12)}")
    ssl = {"status": status, "cert": pairs[pair].cert_text, "key": pairs[pair].key_text, "cname": CNAME}
    return "cluster", ("PATCH", "/v1/env",
                       {"description": after.description, "globalServiceConfiguration": {"ssl": ssl}}), after


def take_answer(admin, request, after, answer: Answer):
    """What is true after an accepted change, with what only its answer tells."""
    method, path, _ = request
    if path.endswith("/regenerateKeys"):
        told = answer.json
        return after.changed(primary=told["primaryKey"], secondary=told["secondaryKey"])
    if method == "POST":
        # Who makes a service asks for its keys next; without an answer they are as good as not known.
        try:
            told = admin.send("GET", f"/v1/services/{answer.json['name']}/keys").json
            return after.changed(primary=told["primaryKey"], secondary=told["secondaryKey"])
        except (OSError, http.client.HTTPException):
            pass
    return after


def write(run, writer, admin, next_change):
    """One writer in one life of the front end."""
    while run.take():
        name, request, after = next_change(writer)
        writer.pending = (name, after)
        began = time.monotonic()
        try:
            answer = admin.patiently(*request)
        except (OSError, http.client.HTTPException) as error:
            if not run.over.is_set():
                run.fault(f"{request[0]} {request[1]} has no answer, and nothing was killed: {error!r}")
            return
        run.seconds.append(time.monotonic() - began)
        if not 200 <= answer.status < 300:
            run.fault(f"{answer} instead of success; the request was {json.dumps(request[2])[:300]}")
            return
        writer.known[name] = take_answer(admin, request, after, answer)
        writer.pending = None
        run.accepted += 1


# Judging


def look_at_service(admin, name):
    """What the API says of a service, in the words of `Service`."""
    answer = admin.patiently("GET", f"/v1/services/{name}")
    if answer.status == 404:
        return GONE
    expect(answer.status == 200, f"{answer} instead of 200 or 404")
    fields = ("scoringTimeoutMs", "maxQueue", "maxBodyBytes", "replicas")
    settings = {field: answer.json.get(field) for field in fields}
    keys = admin.keys(name)
    expect(keys["primaryKey"] and keys["secondaryKey"],
           f"a key of {name} is not known any more: the kept keys do not fit the hashes in the configuration")
    return Service(settings, keys["primaryKey"], keys["secondaryKey"])


def fits(found, wanted):
    if found is GONE or wanted is GONE:
        return found is wanted
    return found.settings == wanted.settings and all(
        known in (None, shown) for known,
        shown in ((wanted.primary, found.primary), (wanted.secondary, found.secondary)))


def judge_services(front, tls, cluster, writer, before, run):
    """Every service of one writer; what is found is what is known from then on."""
    admin = front.admin()
    for name, wanted in writer.known.items():
        possible = [wanted]
        if writer.pending and writer.pending[0] == name:
            possible.append(writer.pending[1])
        found = look_at_service(admin, name)
        expect(any(fits(found, one) for one in possible),
               f"after the kill, service {name} is\n  {found}\nand it should be " + "\nor ".join(map(str, possible)))
        judge_keys(front, tls, cluster, name, found, before.get(name))
        if len(possible) == 2:
            run.count_cut(fits(found, wanted))
        writer.known[name] = found
    writer.pending = None


def judge_keys(front, tls, cluster, name, found, old):
    """That exactly the keys that are shown let callers in."""
    caller = Caller(front.https, tls) if cluster.status == "Enabled" else Caller(front.http)
    try:
        if found is GONE:
            expect(caller.score(name, "x").status == 404, f"{name} is gone, and scores")
            return
        for key in (found.primary, found.secondary):
            answer = caller.score(name, key)
            expect(answer.status == 200, f"{name} does not score with a key that the API shows: {answer}")
        stale = {old.primary, old.secondary} - {found.primary, found.secondary, None} if old else set()
        for key in stale | {"no-such-key-at-all"}:
            answer = caller.score(name, key)
            expect(answer.status == 401, f"{name} lets a key in that it has no more: {answer}")
    finally:
        caller.close()


def judge_cluster(front, tls, serials, writer, run):
    answer = front.admin().get("/v1/env")
    ssl = answer["globalServiceConfiguration"]["ssl"]
    kept = front.admin().ask("POST", "/v1/env/listKeys").json["sslConfiguration"]
    possible = [writer.known["cluster"]] + ([writer.pending[1]] if writer.pending else [])
    pairs = [pair for pair in writer.pairs if (pair.cert_text, pair.key_text) == (kept["cert"], kept["key"])]
    expect(len(pairs) == 1, "the certificate and the key on the disk are not one of the two pairs that were sent")
    found = Cluster(writer.pairs.index(pairs[0]), ssl["status"], answer.get("description"))
    expect(found in possible,
           f"after the kill, the cluster is\n  {found}\nand it should be " + "\nor ".join(map(str, possible)))
    expect(answer["provisioningState"] == "Succeeded",
           f"after the kill, the cluster says {answer['provisioningErrors']}")
    expect(ssl["cname"] == CNAME and kept["cname"] == CNAME, f"the CNAME has become {ssl['cname']}")
    served = serial_served(front.https, tls)
    expect(served == serials[found.pair], f"certificate {served} is served, and {serials[found.pair]} is on the disk")
    if writer.pending:
        run.count_cut(found == possible[0])
    writer.known["cluster"], writer.pending = found, None
    return found


def judge_list(front, writers):
    listed = {service["name"] for service in front.admin().get("/v1/services?count=1000")["value"]}
    known = {name for writer in writers for name, service in writer.known.items() if service is not GONE}
    expect(listed == known, f"listed are {sorted(listed)} instead of {sorted(known)}")


# The run


def live(run, front, draw, writers, changers):
    """One life of the front end: everybody writes, and at some instant it is killed."""
    run.over.clear()
    admin = front.admin()
    threads = [threading.Thread(target=write, args=(run, writer, admin, changer), daemon=True)
               for writer, changer in zip(writers, changers)]
    goal = run.begun + draw.randrange(1, max(2, 2 * run.writes // run.kills))
    for thread in threads:
        thread.start()
    with run.changed:
        run.changed.wait_for(lambda: run.begun >= min(goal, run.writes) or run.faults, 60)
    # Somewhere within the writes that are under way.
    usual = sorted(run.seconds)[len(run.seconds) // 2] if run.seconds else 0.02
    time.sleep(draw.uniform(0, 1.5 * usual))
    run.over.set()
    front.kill()
    for thread in threads:
        thread.join(60)
    if run.faults:
        raise Failed(run.faults[0])


def kill_while_starting(arguments, stack, draw):
    """What a change that was cut off has left is put right by the next start; and by the one after that."""
    front = FrontEnd(stack, arguments.binary, arguments.environment)
    time.sleep(draw.uniform(0, 0.1))
    front.kill()


def judge_leftovers(front, environment, services):
    """Nothing but what belongs to the services there are. What a kill left last is swept away by the next change."""
    front.admin().ask("PATCH", "/v1/env", {"description": "the end"})
    wanted = {"scorefront.toml", f"certs/{CNAME}/cert.pem", f"certs/{CNAME}/key.pem"}
    wanted |= {f"{folder}/{name}.toml" for name in services for folder in ("services", "keys")}
    found = set(files_of(environment))
    expect(found == wanted, f"left over: {sorted(found - wanted)}; missing: {sorted(wanted - found)}")
    for file in (environment / "keys").iterdir():
        expect(file.stat().st_mode & 0o777 == 0o600, f"{file.name} has the mode {file.stat().st_mode & 0o777:o}")


def program(arguments, stack):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10 ** 9)
    print(f"seed {seed}", flush=True)
    draw = random.Random(seed)
    authority = Authority(arguments.directory / "ca")
    pairs = [authority.pair("one"), authority.pair("two")]
    serials, tls = [pair.serial for pair in pairs], authority.context()
    replicas = [model(stack) for _ in range(3)]
    environment = write_environment(arguments.directory / "env", pair=pairs[0],
                                    more='\n[defaults]\nmax_queue_wait = "10s"\n')
    arguments.environment = environment

    run = Run(arguments.writes, max(1, arguments.kills))
    names = [[f"svc-{writer}-{number}" for number in range(NAMES_EACH)] for writer in range(WRITERS)]
    writers = [Writer(random.Random(draw.random()), dict.fromkeys(own, GONE)) for own in names]
    keeper = Writer(random.Random(draw.random()), {"cluster": Cluster(0, "Enabled", None)})
    keeper.pairs = pairs
    changers = [lambda writer: service_change(writer, replicas)] * WRITERS + [lambda writer: cluster_change(writer,
                                                                                                            pairs)]

    kills = 0
    front = serve(stack, arguments.binary, environment)
    while run.begun < run.writes:
        before = {name: service for writer in writers for name, service in writer.known.items()}
        live(run, front, draw, [*writers, keeper], changers)
        kills += 1
        if kills % 10 == 0:
            kill_while_starting(arguments, stack, draw)
        front = serve(stack, arguments.binary, environment)
        try:
            check(arguments.binary, environment)
            cluster = judge_cluster(front, tls, serials, keeper, run)
            for writer in writers:
                judge_services(front, tls, cluster, writer, before, run)
            judge_list(front, writers)
        except Failed as failure:
            raise Failed(f"kill {kills}, write {run.begun}, seed {seed}: {failure}") from None
        if kills % 10 == 0:
            print(f"  {kills} kills, {run.begun} writes", flush=True)
    expect(run.accepted > run.writes / 2,
           f"of {run.writes} writes only {run.accepted} were accepted: this shows nothing")
    judge_leftovers(front, environment, [name for writer in writers for name, known in writer.known.items() if known])
    front.stop()
    done(f"{run.writes} writes, {kills} kills: {run.accepted} accepted, and all of them there; "
         f"{run.whole + run.nothing} cut off, {run.whole} there whole and {run.nothing} not at all")


def options(parser):
    parser.add_argument("--writes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--kills", type=int, default=60, help="about so many; default: 60")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")


if __name__ == "__main__":
    main(__doc__, program, options)
