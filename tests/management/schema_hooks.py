"""What schema.py has schemathesis do with each call: nothing leaves this machine, and enough of them can succeed.

Schemathesis makes addresses of replicas up. Those that could be somebody's become this machine's; of every second body
of a service only the settings stay that random values can be right for, with a replica that there is; and every second
call is about the one service, or the one operation, that there is. Statuses are counted by operation, so that schema.py
can see that it was no empty show.
"""

import atexit
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import schemathesis

REPLICA = os.environ["SCHEMA_REPLICA"]
# Of what schema.py did before.
OPERATION = os.environ["SCHEMA_OPERATION"]
COUNTS = Path(os.environ["SCHEMA_COUNTS"])
# A port that nobody listens on.
NOBODY = "http://127.0.0.1:9"
SERVICE = "iris"
HARMLESS = {"name", "authEnabled", "maxQueue", "maxRequestsInFlight", "maxConcurrentRequestsPerContainer"}

counts = {}


def is_chosen(case):
    """Half of the calls, always the same ones."""
    said = json.dumps([case.body if isinstance(case.body, (dict, list)) else None, case.path_parameters], default=str,
                      sort_keys=True)
    return hashlib.sha256(said.encode()).digest()[0] % 2 == 0


def at_home(address):
    if not isinstance(address, str):
        return address
    try:
        host = urlsplit(address).hostname
    except ValueError:
        return address
    return NOBODY if host and host != "127.0.0.1" else address


def keep_at_home(settings):
    if isinstance(settings.get("replicas"), list):
        settings["replicas"] = [at_home(address) for address in settings["replicas"]]
    if isinstance(settings.get("deployments"), list):
        for deployment in settings["deployments"]:
            if isinstance(deployment, dict):
                keep_at_home(deployment)


@schemathesis.hook
def before_call(context, case, kwargs):
    chosen = is_chosen(case)
    if chosen and isinstance(case.path_parameters, dict):
        known = {"name": SERVICE, "id": OPERATION}
        case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
    if isinstance(case.body, dict) and case.operation.path.startswith("/v1/services"):
        if chosen and not case.operation.path.endswith("/regenerateKeys"):
            for name in set(case.body) - HARMLESS:
                del case.body[name]
            case.body["replicas"] = [REPLICA]
        keep_at_home(case.body)


@schemathesis.hook
def after_call(context, case, response):
    counts.setdefault(case.operation.label, Counter())[str(response.status_code)] += 1


@atexit.register
def write():
    COUNTS.write_text(json.dumps(counts))
