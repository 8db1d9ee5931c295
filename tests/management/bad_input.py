#!/usr/bin/env python3
"""Everything that can be sent wrongly to the management API: it says what to do, and changes nothing.

    cargo build && python3 tests/management/bad_input.py [--only TEXT] [--binary FILE]

Each request has to get its status, its code, and a message with the words that tell what is wrong or what to do; after
each, no file of the environment has changed, and a scoring call is answered. In the end no answer but those that are
for keys, and no line of the log, holds a private key, a service's key, the token, or anything else that was sent as a
secret.
"""

import base64
import http.client
import json
from dataclasses import dataclass, field

from support import (CNAME, Admin, Answer, Authority, Caller, Failed, done, expect, files_of, main, model, must,
                     replace, serve,
                     wait_until, write_environment)

OTHER_CNAME = "other.example.com"
STALE = '"00000000000000000000000000000000"'
TOKEN = "a-token-of-the-tests-0123456789"
PASTED = "pasted-in-a-wrong-place-0123456789"
LARGE = 1024 * 1024


@dataclass
class Case:
    """A request that is wrong, and what has to be said about it."""

    what: str
    request: tuple
    status: int
    code: str | None
    # All of them stand in the message or its details, whatever their case.
    words: tuple = ()
    headers: dict = field(default_factory=dict)
    allow: str | None = None


def ssl(**fields):
    return ("PATCH", "/v1/env", {"globalServiceConfiguration": {"ssl": fields}})


def create(**fields):
    return ("POST", "/v1/services", {"name": "churn", "replicas": ["http://127.0.0.1:9"], **fields})


def change(**fields):
    return ("PUT", "/v1/services/iris", fields)


def as_base64(text):
    return base64.b64encode(text.encode()).decode()


def der_of(pair, kind):
    """What stands in a DER file of the certificate, or of the key."""
    reading = {"cert": ["x509", "-in", pair.cert], "key": ["pkcs8", "-topk8", "-nocrypt", "-in", pair.key]}[kind]
    file = pair.cert.with_suffix(".der")
    must(["openssl", *reading, "-outform", "DER", "-out", file])
    return file.read_bytes()


def certificates(pairs):
    one, two, other = pairs
    cert, key = one.cert_text, one.key_text
    bad = "InvalidSslSetting"
    der, key_der = der_of(one, "cert"), der_of(one, "key")
    return [
        Case("a certificate as base64 of PEM", ssl(cert=as_base64(cert), key=key, cname=CNAME), 400, bad,
             ("cert", "base64", "raw PEM")),
        Case("a key as base64 of PEM", ssl(cert=cert, key=as_base64(key), cname=CNAME), 400, bad,
             ("key", "base64", "raw PEM")),
        Case("the path of the certificate", ssl(cert=str(one.cert), key=key, cname=CNAME), 400, bad,
             ("cert", "raw PEM")),
        Case("the path of the key", ssl(cert=cert, key=str(one.key), cname=CNAME), 400, bad, ("key", "raw PEM")),
        Case("a certificate as DER read as text", ssl(cert=der.decode(errors="replace"), key=key, cname=CNAME), 400,
             bad, ("cert", "PEM")),
        Case("a certificate as DER, byte by byte", ssl(cert=der.decode("latin-1"), key=key, cname=CNAME), 400, bad,
             ("cert", "PEM")),
        Case("a key as DER, byte by byte", ssl(cert=cert, key=key_der.decode("latin-1"), cname=CNAME), 400, bad,
             ("key", "PEM")),
        Case("a certificate as base64 of DER", ssl(cert=base64.b64encode(der).decode(), key=key, cname=CNAME), 400, bad,
             ("cert", "PEM")),
        Case("an empty certificate", ssl(cert="", key=key, cname=CNAME), 400, bad, ("cert", "PEM")),
        Case("an empty key", ssl(cert=cert, key="", cname=CNAME), 400, bad, ("key", "PEM")),
        Case("certificate and key swapped", ssl(cert=key, key=cert, cname=CNAME), 400, bad, ("cert",)),
        Case("a CNAME that the certificate does not cover", ssl(cert=cert, key=key, cname=OTHER_CNAME), 400, bad,
             (OTHER_CNAME, CNAME)),
        Case("a certificate of another CNAME", ssl(cert=other.cert_text, key=other.key_text), 400, bad,
             (OTHER_CNAME, CNAME)),
        Case("a certificate without its key", ssl(cert=cert, cname=CNAME), 400, bad, ("key file must be provided",)),
        Case("a key without its certificate", ssl(key=key, cname=CNAME), 400, bad,
             ("certificate file must be provided",)),
        Case("the key of another certificate", ssl(cert=cert, key=two.key_text, cname=CNAME), 400, bad,
             ("key", "does not belong")),
        Case("a CNAME that is no name", ssl(cert=cert, key=key, cname="https://scoring.example.com/"), 400, bad,
             ("cname",)),
        Case("a CNAME without a certificate", ssl(cname=OTHER_CNAME), 400, bad, (OTHER_CNAME, "cert", "key")),
        Case("a status that there is not", ssl(status="On"), 400, "BadRequest", ("status", "Enabled", "Disabled")),
        Case("a status of another type", ssl(status=True), 400, "BadRequest", ("status",)),
        Case("a certificate of another type", ssl(cert=[cert], key=key), 400, "BadRequest", ("cert",)),
        Case("a field that is spelt otherwise", ssl(certificate=cert, key=key), 400, "BadRequest",
             ("certificate", "cert")),
        Case("ssl at the top", ("PATCH", "/v1/env", {"ssl": {"status": "Disabled"}}), 400, "BadRequest",
             ("ssl", "globalServiceConfiguration")),
        Case("a key pasted as the CNAME", ssl(cert=cert, key=key, cname=key), 400, bad, ("cname",)),
        Case("a key pasted as the status", ssl(status=key), 400, "BadRequest", ("status",)),
        Case("a key that is a list", ssl(cert=cert, key=[key]), 400, "BadRequest", ("key",)),
        Case("a key as the whole of ssl", ("PATCH", "/v1/env", {"globalServiceConfiguration": {"ssl": key}}), 400,
             "BadRequest", ("ssl",)),
    ]


def services():
    live = [{"name": "blue", "traffic": 90, "replicas": ["http://127.0.0.1:9"]},
            {"name": "green", "traffic": 10, "replicas": ["http://127.0.0.1:9"]}]
    bad, config = "InvalidService", "InvalidConfiguration"
    name = "InvalidServiceName"
    return [
        *(Case(f"a service called {wrong!r}", create(name=wrong), 400, name, ("3 to 32",))
          for wrong in ("", "ab", "Iris", "1iris", "iris_1", "iris-", "iris.", "a" * 33, "iris/score", "../../x",
                        "iris\n", "írisé", "iris x")),
        Case("a service without a name", ("POST", "/v1/services", {"replicas": []}), 400, bad, ("name",)),
        Case("a name that is no text", create(name=7), 400, bad, ("name",)),
        Case("a field that is spelt otherwise", create(scoringTimeout=60), 400, bad,
             ("scoringTimeout", "scoringTimeoutMs")),
        Case("a field of the original that does not apply", create(numReplicas=3), 400, bad,
             ("numReplicas", "replicas")),
        Case("an image", create(imageId="x"), 400, bad, ("imageId", "replicas")),
        Case("a number as text", create(maxQueue="100"), 400, bad, ("maxQueue",)),
        Case("a number below zero", create(maxQueue=-1), 400, bad, ("maxQueue",)),
        Case("a fraction", create(scoringTimeoutMs=0.5), 400, bad, ("scoringTimeoutMs",)),
        Case("a number that is too large for any", create(scoringTimeoutMs=2 ** 64), 400, bad, ("scoringTimeoutMs",)),
        Case("no time at all", create(scoringTimeoutMs=0), 400, config, ("scoring_timeout",)),
        Case("a switch as text", create(authEnabled="yes"), 400, bad, ("authEnabled",)),
        Case("replicas that are no list", create(replicas="http://127.0.0.1:9"), 400, bad, ("replicas",)),
        Case("no replicas", create(replicas=[]), 400, config, ("replica",)),
        Case("neither replicas nor dns", ("POST", "/v1/services", {"name": "churn"}), 400, config, ("replicas", "dns")),
        Case("replicas and dns", create(dns="x.models.svc:5001"), 400, config, ("replicas", "dns")),
        Case("a replica with https", create(replicas=["https://127.0.0.1:9"]), 400, config,
             ("TLS ends at the front end", "http://127.0.0.1:9")),
        Case("a replica with a path", create(replicas=["http://127.0.0.1:9/score"]), 400, config, ("path",)),
        Case("a replica without http", create(replicas=["127.0.0.1:9"]), 400, config, ("http://",)),
        Case("a replica with a password", create(replicas=[f"http://user:{PASTED}@127.0.0.1:9"]), 400, config,
             ("user or password",)),
        Case("a protocol that there is not", create(protocol="onnx"), 400, config, ("protocol", "azureml")),
        Case("a CNAME without a certificate", create(cnames=[OTHER_CNAME]), 400, config, (OTHER_CNAME,)),
        Case("traffic that adds up to 110", create(replicas=None, deployments=[live[0] | {"traffic": 100}, live[1]]),
             400, config, ("add up to 110", "100")),
        Case("traffic that adds up to 90", change(replicas=None, deployments=[live[0], live[1] | {"traffic": 0}]), 400,
             config, ("add up to 90", "10 more")),
        Case("two deployments of one name", create(replicas=None, deployments=[live[0] | {"traffic": 50}] * 2), 400,
             config, ("blue",)),
        Case("a mirror to a live deployment",
             create(replicas=None, deployments=live, mirror={"deployment": "green", "percent": 5}), 400, config,
             ("green", "live or mirrored", "traffic = 0")),
        Case("a mirror to no deployment",
             create(replicas=None, deployments=live, mirror={"deployment": "red", "percent": 5}), 400, config,
             ("red",)),
        Case("a mirror that is spelt otherwise", create(mirror={"deployment": "x", "share": 5}), 400, bad,
             ("share", "percent")),
        Case("replicas beside deployments", create(deployments=live), 400, config, ("replicas",)),
        Case("a deployment's field that is spelt otherwise",
             create(replicas=None, deployments=[{"name": "blue", "weight": 100}]), 400, bad, ("weight", "traffic")),
        Case("a service that exists", create(name="iris"), 409, "ServiceAlreadyExists",
             ("iris", "PUT /v1/services/iris")),
        Case("another name", change(name="petal"), 400, bad, ("name",)),
        Case("a stale ETag", change(maxQueue=7), 412, "PreconditionFailed", ("ETag",), {"if-match": STALE}),
        Case("a weak ETag", change(maxQueue=7), 412, "PreconditionFailed", ("ETag",), {"if-match": f"W/{STALE}"}),
        Case("a stale ETag to take away", ("DELETE", "/v1/services/iris", None), 412, "PreconditionFailed", ("ETag",),
             {"if-match": STALE}),
        Case("a stale ETag of the cluster", ssl(status="Disabled"), 412, "PreconditionFailed", ("ETag",),
             {"if-match": STALE}),
        Case("a stale ETag of the cluster in the body",
             ("PATCH", "/v1/env",
              {"globalServiceConfiguration": {"etag": STALE.strip('"'), "ssl": {"status": "Disabled"}}}),
             412, "PreconditionFailed", ("ETag",)),
        *(Case(f"{method} {path} of an unknown service", (method, path.format("unknown"), body), 404, "ServiceNotFound",
               ("unknown",))
          for method, path, body in (("GET", "/v1/services/{}", None), ("PUT", "/v1/services/{}", {"maxQueue": 1}),
                                     ("GET", "/v1/services/{}/keys", None),
                                     ("POST", "/v1/services/{}/regenerateKeys", {"keyType": "Primary"}))),
        Case("to take an unknown service away", ("DELETE", "/v1/services/unknown", None), 204, None),
        Case("to take away what could not be a service", ("DELETE", "/v1/services/..%2Fscorefront", None), 204, None),
        Case("an unknown operation", ("GET", "/v1/operations/unknown", None), 404, "OperationNotFound"),
        Case("a page of nothing", ("GET", "/v1/services?count=0", None), 400, "BadRequest", ("count", "1000")),
        Case("a page of some", ("GET", "/v1/services?count=some", None), 400, "BadRequest", ("count",)),
        Case("a page below zero", ("GET", "/v1/services?count=-1", None), 400, "BadRequest", ("count",)),
        Case("a name that is no text", ("GET", "/v1/services/%FF", None), 400, "BadRequest"),
        Case("a query that is no text", ("GET", "/v1/services?serviceName=%FF%FE", None), 200, None),
    ]


def keys():
    def regenerate(**fields):
        return ("POST", "/v1/services/iris/regenerateKeys", fields)

    return [
        Case("no kind of key", regenerate(), 400, "BadRequest", ("keyType",)),
        Case("a kind of key that there is not", regenerate(keyType="Third"), 400, "BadRequest",
             ("Primary", "Secondary")),
        Case("a key as its kind", regenerate(keyType=PASTED), 400, "BadRequest", ("Primary", "Secondary")),
        Case("a key that is too short", regenerate(keyType="Primary", keyValue="short-1234"), 400, "InvalidKey",
             ("16 to 256",)),
        Case("a key with a blank", regenerate(keyType="Primary", keyValue=f"{PASTED} {PASTED}"), 400, "InvalidKey",
             ("blank",)),
        Case("a key that is too long", regenerate(keyType="Primary", keyValue=PASTED * 10), 400, "InvalidKey",
             ("16 to 256",)),
        Case("a key in a list", regenerate(keyType="Primary", keyValue=[PASTED]), 400, "BadRequest", ("keyValue",)),
        Case("a key under another name", regenerate(keyType="Primary", key=PASTED), 400, "BadRequest",
             ("key", "keyValue")),
        Case("a key of a service without any", ("POST", "/v1/services/open/regenerateKeys", {"keyType": "Primary"}),
             409, "NoKeys", ("open", "authEnabled")),
    ]


def bodies():
    big = json.dumps({"description": "x" * LARGE}).encode()
    kind, large = "UnsupportedMediaType", "BodyTooLarge"
    cases = []
    for method, path, body in (("PATCH", "/v1/env", b"{}"), ("POST", "/v1/services", b'{"name":"churn"}'),
                               ("PUT", "/v1/services/iris", b"{}"),
                               ("POST", "/v1/services/iris/regenerateKeys", b"{}")):
        where = f"{method} {path}: "
        cases += [
            Case(where + "a body that is too large", (method, path, big), 413, large, ("1024 KiB",)),
            Case(where + "a body of 16 MiB", (method, path, b" " * 16 * LARGE), 413, large, ("1024 KiB",)),
            *(Case(where + f"a content type of {wrong}", (method, path, body), 415, kind, ("application/json",),
                   {"content-type": wrong})
              for wrong in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "")),
            Case(where + "nothing", (method, path, b""), 400, "BadRequest", ("JSON",)),
            Case(where + "JSON that ends early", (method, path, b'{"keyValue": "' + PASTED.encode()), 400, "BadRequest",
                 ("JSON", "line 1")),
            Case(where + "JSON with a comma too many", (method, path, b'{"a": 1,}'), 400, "BadRequest",
                 ("JSON", "line 1")),
            Case(where + "a list", (method, path, b"[]"), 400, "BadRequest", ("object",)),
            Case(where + "null", (method, path, b"null"), 400, "BadRequest", ("object",)),
            Case(where + "text that is no UTF-8", (method, path, b'{"description": "\xff\xfe"}'), 400, "BadRequest",
                 ("JSON",)),
            Case(where + "JSON that is nested 100,000 times", (method, path, b"[" * 100_000), 400, "BadRequest",
                 ("JSON",)),
        ]
    return cases


def paths():
    def refused(method, path, allow):
        return Case(f"{method} {path}", (method, path, None), 405, "MethodNotAllowed", ("Allow",), allow=allow)

    return [
        refused("POST", "/v1/env", "GET,HEAD,PATCH"), refused("PUT", "/v1/env", "GET,HEAD,PATCH"),
        refused("DELETE", "/v1/env", "GET,HEAD,PATCH"), refused("GET", "/v1/env/listKeys", "POST"),
        refused("PUT", "/v1/services", "GET,HEAD,POST"), refused("DELETE", "/v1/services", "GET,HEAD,POST"),
        refused("PATCH", "/v1/services/iris", "GET,HEAD,PUT,DELETE"),
        refused("POST", "/v1/services/iris", "GET,HEAD,PUT,DELETE"),
        refused("POST", "/v1/services/iris/keys", "GET,HEAD"),
        refused("GET", "/v1/services/iris/regenerateKeys", "POST"),
        refused("DELETE", "/v1/operations/x", "GET,HEAD"), refused("POST", "/openapi.json", "GET,HEAD"),
        refused("PUT", "/livez", "GET,HEAD"), refused("GET", "/v1/reload", "POST"),
        Case("a path that there is not", ("GET", "/v1/service", None), 404, "NotFound", ("/openapi.json",)),
        Case("the root", ("GET", "/", None), 404, "NotFound", ("/openapi.json",)),
        Case("a slash too many", ("GET", "/v1/services/", None), 404, None),
        Case("a web page's request", ("PATCH", "/v1/env", {}), 403, "Forbidden", ("token_file",),
             {"origin": "https://evil.example"}),
        Case("a name that was made to lead here", ("GET", "/v1/env", None), 403, "Forbidden", ("token_file",),
             {"host": "evil.example:8900"}),
    ]


class Bench:
    """The front end that all of it is sent to, and what it said."""

    def __init__(self, front, environment, caller, key, token=None):
        self.front, self.admin, self.environment = front, front.admin(token), environment
        self.caller, self.key = caller, key
        self.answers, self.count = [], 0

    def send(self, case, token=True):
        """Also the answer to a body that was not taken to its end."""
        method, path, body = case.request
        admin = self.admin if token else Admin(self.admin.address)
        try:
            answer = admin.patiently(method, path, body, case.headers)
        except (ConnectionError, http.client.HTTPException) as error:
            raise Failed(f"{case.what}: {method} {path} got no answer, but {error!r}") from None
        # The answer repeats what was asked: never a key.
        self.answers.append(answer)
        return answer

    def refuse(self, case, token=True):
        before = files_of(self.environment)
        answer = self.send(case, token)
        judge(case, answer)
        after = files_of(self.environment)
        changed = sorted(set(before.items()) ^ set(after.items()))
        expect(not changed, f"{case.what}: it was refused, and yet files have changed: {changed}")
        score = self.caller.score("iris", self.key)
        expect(score.status == 200, f"after {case.what}, scoring is answered with {score}")
        self.front.expect_running()
        self.count += 1


def judge(case, answer: Answer):
    expect(answer.status == case.status, f"{case.what}: {answer} instead of {case.status}")
    if case.status < 400:
        return
    expect(answer.fields.get("content-type") == "application/json",
           f"{case.what}: {answer} is {answer.fields.get('content-type')}")
    expect(case.code in (None, answer.code), f"{case.what}: {answer} has not the code {case.code}")
    error = answer.json["error"]
    expect(set(error) == {"code", "message", "details"}
           and all(set(one) == {"code", "message"} for one in error["details"]),
           f"{case.what}: {answer} is no error of the form code, message, details")
    said = answer.body.decode().lower()
    for word in case.words:
        escaped = json.dumps(word)[1:-1].lower()
        expect(escaped in said, f"{case.what}: {answer} does not say {word!r}")
    if case.allow:
        allowed = set(answer.fields.get("allow", "").replace(" ", "").split(","))
        expect(allowed == set(case.allow.split(",")),
               f"{case.what}: Allow is {answer.fields.get('allow')!r}, not {case.allow}")
    if case.status == 401:
        expect(answer.fields.get("www-authenticate", "").startswith("Bearer"),
               f"{case.what}: no WWW-Authenticate: {answer.fields}")


def refuse_while_files_are_wrong(bench):
    """What an operator has broken is for the operator to mend; what was there before goes on."""
    main_file = bench.environment / "scorefront.toml"
    sound = main_file.read_text()
    replace(main_file, sound.replace('status = "Enabled"', 'status = "Perhaps"'))
    bench.refuse(Case("a change while the files are wrong", ssl(status="Disabled"), 409, "ConfigurationInvalid",
                      ("mend", "scorefront.toml:", "Perhaps")))
    bench.refuse(Case("a service while the files are wrong", create(), 409, "ConfigurationInvalid",
                      ("mend", "scorefront.toml:")))
    wait_until("the cluster says that it is not what the files hold",
               lambda: bench.admin.get("/v1/env")["provisioningState"] == "Failed")
    replace(main_file, sound)
    wait_until("the cluster says that all is well again",
               lambda: bench.admin.get("/v1/env")["provisioningState"] == "Succeeded")
    bench.admin.ask("PATCH", "/v1/env", {"description": "mended"})


def with_token(arguments, stack, pair, tls):
    """A front end that asks for a token: whoever has none may see whether it is alive, and nothing else."""
    environment = write_environment(arguments.directory / "token", pair=pair, admin='token_file = "admin.token"\n')
    (environment / "admin.token").write_text(TOKEN + "\n")
    (environment / "admin.token").chmod(0o600)
    front = serve(stack, arguments.binary, environment)
    bench = Bench(front, environment, Caller(front.https, tls), None, TOKEN)
    bench.admin.create("iris", [model(stack)])
    bench.key = bench.admin.keys("iris")["primaryKey"]
    told = ("Authorization: Bearer",)
    requests = [("GET", "/v1/env", None), ("PATCH", "/v1/env", {"description": "x"}),
                ("POST", "/v1/env/listKeys", None),
                ("GET", "/v1/services", None),
                ("POST", "/v1/services", {"name": "churn", "replicas": ["http://127.0.0.1:9"]}),
                ("GET", "/v1/services/iris", None), ("PUT", "/v1/services/iris", {"maxQueue": 1}),
                ("DELETE", "/v1/services/iris", None),
                ("GET", "/v1/services/iris/keys", None),
                ("POST", "/v1/services/iris/regenerateKeys", {"keyType": "Primary"}),
                ("GET", "/v1/operations/x", None), ("GET", "/openapi.json", None), ("GET", "/metrics", None),
                ("POST", "/v1/reload", None),
                ("GET", "/no/such/path", None), ("DELETE", "/v1/env", None)]
    for request in requests:
        where = f"{request[0]} {request[1]}"
        bench.refuse(Case(f"{where} without a token", request, 401, "Unauthorized", told), token=False)
        for wrong in (f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer",
                      f"Bearer {bench.key}"):
            bench.refuse(Case(f"{where} with {wrong.split(' ')[0]} and a wrong token", request, 401, "Unauthorized",
                              told, {"authorization": wrong}), token=False)
    for path in ("/livez", "/readyz"):
        expect(Admin(front.admin_address).send("GET", path).status == 200, f"{path} asks for a token")
    expect(bench.admin.get("/v1/env")["name"], "the right token is not taken")
    secrets = {"the token": TOKEN, "a key of iris": bench.key}
    look_for_secrets(bench, secrets, front.stop())
    done(f"{bench.count} requests without the token")


def look_for_secrets(bench, secrets, log):
    """Everywhere it stands, each place once."""
    found = []
    for answer in bench.answers:
        what = next((what for what, secret in secrets.items() if secret.encode() in answer.body), None)
        found += [f"{what} stands in an answer: {answer}"] if what else []
    for line in log.splitlines():
        what = next((what for what, secret in secrets.items() if secret in line), None)
        found += [f"{what} stands in the log: {line}"] if what else []
    expect(not found, "\n".join(found))


def secrets_of(pairs, kept):
    """Every line of every private key, because part of one is enough to give it away."""
    found = {"what was pasted in a wrong place": PASTED, "a private key's first line": "PRIVATE KEY-----"}
    for number, pair in enumerate(pairs):
        lines = [line for line in pair.key_text.splitlines() if "-----" not in line]
        found |= {f"line {at} of private key {number}": line for at, line in enumerate(lines)}
        found[f"base64 of private key {number}"] = as_base64(pair.key_text)[100:140]
    return found | {f"the {name} of iris": key for name, key in kept.items()}


def program(arguments, stack):
    authority = Authority(arguments.directory / "ca")
    pairs = [authority.pair("one"), authority.pair("two"), authority.pair("other", OTHER_CNAME)]
    tls = authority.context()
    environment = write_environment(arguments.directory / "env", pair=pairs[0])
    front = serve(stack, arguments.binary, environment)
    admin = front.admin()
    replica = model(stack)
    admin.create("iris", [replica])
    admin.create("open", [replica], authEnabled=False)
    kept = admin.keys("iris")
    bench = Bench(front, environment, Caller(front.https, tls), kept["primaryKey"])
    faults = []
    for what, cases in (("certificates", certificates(pairs)), ("services", services()), ("keys", keys()),
                        ("bodies", bodies()),
                        ("paths and methods", paths())):
        wrong = 0
        for case in cases:
            if arguments.only and arguments.only not in case.what:
                continue
            try:
                bench.refuse(case)
            except Failed as failure:
                wrong += 1
                faults.append(failure)
                print(f"FAILED   {failure}", flush=True)
        print(f"{'ok      ' if not wrong else 'FAILED  '} {what}: {len(cases)} requests", flush=True)
    refuse_while_files_are_wrong(bench)
    done("changes while the files are wrong")
    try:
        look_for_secrets(bench, secrets_of(pairs, kept), front.stop())
        done(f"no secret in {len(bench.answers)} answers and the log")
    except Failed as failure:
        faults.append(failure)
        print(f"FAILED   {failure}", flush=True)
    with_token(arguments, stack, pairs[0], tls)
    expect(not faults, f"{len(faults)} of the above")


def options(parser):
    parser.add_argument("--only", metavar="TEXT", help="only requests whose description holds this")


if __name__ == "__main__":
    main(__doc__, program, options)
