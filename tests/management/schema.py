#!/usr/bin/env python3
"""The OpenAPI document says what the API does: schemathesis calls everything in it and compares.

    cargo build && python3 tests/management/schema.py [--examples N] [--seed N] [--binary FILE]

For each operation, calls that the document allows and calls that it does not: no answer is a 5xx, and each has a
status, a content type, header fields and a body that the document has for it. Each operation has to have succeeded at
least once. And docs/openapi.json is the document that is served. The addresses of replicas stay on this machine; see
schema_hooks.py.
"""

import json
import os

from support import (HERE, ROOT, Authority, done, expect, main, model, run, serve, venv, write_environment)

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance")
# The whole run takes a small part of it.
TIMEOUT = 900
# Below what the front end takes of changes in the long run; refusals of too many would show nothing.
RATE = "90/s"
# Schemathesis leaves out what it got the document from.
ITSELF = "GET /openapi.json"
# It ends the front end, so that another one, which takes its time, is asked for that.
DRAIN = "/v1/drain"
METHODS = ("get", "post", "put", "patch", "delete")


def compare_documents(served):
    file = ROOT / "docs/openapi.json"
    expect(file.exists(), "docs/openapi.json is not there; it has to be what GET /openapi.json answers")
    written = file.read_bytes()
    different = differences(json.loads(written), served.json)
    expect(not different, f"docs/openapi.json is not what is served: {'; '.join(different[:5])}")
    expect(written == served.body, "docs/openapi.json says what is served, and is written otherwise")
    done("docs/openapi.json is what is served")


def differences(one, other, where=""):
    """The places in which two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                found.append(f"{where}/{key} is only in {'the file' if key in one else 'what is served'}")
            else:
                found += differences(one[key], other[key], f"{where}/{key}")
        return found
    return [] if one == other else [f"{where or '/'} differs"]


def operations(document):
    return {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in METHODS
            if method in item}


def call_everything(arguments, front, replica, operation, which):
    """Returns how often each operation had which status. `which` of the paths are called, in schemathesis's words."""
    counts = arguments.directory / "counts.json"
    programs = venv("management-venvs/schemathesis", HERE / "requirements/schemathesis.txt")
    finished = run(
        [programs / "st", "run", f"http://{front.admin_address}/openapi.json", "--checks", ",".join(CHECKS),
         "--no-color", *which,
         "--max-examples", arguments.examples, "--seed", arguments.seed, "--generation-database", "none", "--phases",
         "examples,coverage,fuzzing,stateful", "--continue-on-failure", "--rate-limit", RATE, "--request-timeout", 30,
         "--suppress-health-check", "all", "--warnings", "off"],
        timeout=TIMEOUT, cwd=arguments.directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(HERE),
             "PYTHONDONTWRITEBYTECODE": "1",
             "SCHEMA_REPLICA": replica, "SCHEMA_OPERATION": operation, "SCHEMA_COUNTS": str(counts)})
    front.expect_running()
    expect(counts.exists(), f"schemathesis did not run:\n{finished.stdout}{finished.stderr}")
    found = json.loads(counts.read_text())
    expect(finished.returncode == 0,
           f"schemathesis, seed {arguments.seed}:\n{finished.stdout[-12000:]}{finished.stderr[-2000:]}")
    return found


def judge(found, document):
    for operation in sorted(operations(document) - {ITSELF}):
        statuses = found.get(operation, {})
        expect(statuses, f"{operation} was never called")
        expect(any(status.startswith("2") for status in statuses),
               f"{operation} never succeeded, which shows little: {statuses}")
        told = ", ".join(f"{status} {count} times" for status, count in sorted(statuses.items()))
        print(f"         {operation}: {told}")
    total = sum(sum(statuses.values()) for statuses in found.values())
    refused = sum(statuses.get("429", 0) for statuses in found.values())
    expect(refused < total / 10, f"{refused} of {total} calls were too many at once, which shows little")
    done(f"{total} calls of {len(found)} operations, each answered as the document says")


def program(arguments, stack):
    authority = Authority(arguments.directory / "ca")
    # Names are looked up nowhere.
    environment = write_environment(arguments.directory / "env", pair=authority.pair("one"),
                                    more='\n[dns]\nservers = ["127.0.0.1:9"]\n')
    front = serve(stack, arguments.binary, environment)
    replica = model(stack)
    created = front.admin().create("iris", [replica])
    operation = created.fields["operation-location"].removeprefix("/v1/operations/")
    served = front.admin().ask("GET", "/openapi.json")
    found = call_everything(arguments, front, replica, operation, ("--exclude-path", DRAIN))
    leaving = serve(stack, arguments.binary, write_environment(arguments.directory / "leaving", tls="Disabled", grace="1h"))
    found |= call_everything(arguments, leaving, replica, operation, ("--include-path", DRAIN))
    leaving.kill()
    judge(found, served.json)
    log = front.stop() + leaving.said()
    expect("panicked" not in log, f"the front end has panicked:\n{log[-3000:]}")
    compare_documents(served)


def options(parser):
    parser.add_argument("--examples", type=int, default=60, help="of each operation; default: 60")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")


if __name__ == "__main__":
    main(__doc__, program, options)
