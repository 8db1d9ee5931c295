#!/usr/bin/env python3
"""Alerts and dashboard, against the metrics of a front end that runs.

    python3 tests/deployment/monitoring.py --binary FILE

  * every metric that deploy/prometheus/scorefront.yaml, deploy/grafana/scorefront.json, deploy/kubernetes/examples and the
    tables of docs/metrics.md and docs/kubernetes.md name is on /metrics, and every one on /metrics is in one of those, with the labels it has;
  * the rules are valid, and say of made-up figures what scorefront.test.yaml expects (promtool);
  * the expressions of the dashboard are valid, and ask for no label that the metric does not have.

promtool is Debian's (package prometheus), which is unpacked into target/ where it is not installed.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "management"))

from support import (ROOT, Authority, Caller, done, expect, free_ports, main, model, must, run, serve,  # noqa: E402
                     write_environment)

RULES = ROOT / "deploy/prometheus/scorefront.yaml"
DASHBOARD = ROOT / "deploy/grafana/scorefront.json"
EXAMPLES = ROOT / "deploy/kubernetes/examples"
NAME = re.compile(r"\bscorefront_[a-z0-9_]+")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""], "info": ["_info"]}
# Of Prometheus, and of the copies to a deployment on trial.
EVERYWHERE = {"le", "instance", "job"}


def monitoring(arguments, stack):
    served = Served(arguments, stack)
    documented = documented_metrics()
    names = set(documented)
    expect(names == served.families, f"the documented metrics and /metrics differ: {sorted(names ^ served.families)}")
    for name, labels in served.labels.items():
        expect(labels <= documented[name] | EVERYWHERE, f"{name} has {labels}, and docs/metrics.md says {documented[name]}")
    done(f"docs/ has the {len(names)} metrics of /metrics, with their labels")

    expressions = dashboard_expressions()
    queries = RULES.read_text() + "".join(example.read_text() for example in EXAMPLES.glob("*.yaml"))
    for name in sorted(set(NAME.findall(queries + " ".join(expressions))) - {"scorefront_calls_of_model"}):
        expect(name in served.samples, f"there is no metric {name}")
    for metric, selector in re.findall(r"(scorefront_\w+)\{([^}]*)\}", queries + " ".join(expressions)):
        asked = set(re.findall(r"(\w+)=", selector))
        known = documented[served.family_of[metric]] | EVERYWHERE
        expect(asked <= known, f"{metric} is asked for by {asked}, and has {known}")
    done(f"{len(expressions)} expressions of the dashboard, the rules and the examples name metrics and labels that there are")

    promtool = find_promtool(arguments)
    must([promtool, "check", "rules", RULES])
    must([promtool, "test", "rules", RULES.parent / "scorefront.test.yaml"])
    recorded = arguments.directory / "dashboard.yaml"
    recorded.write_text("groups:\n- name: dashboard\n  rules:\n" + "".join(
        f"  - record: panel:{number}\n    expr: {json.dumps(bare(expression))}\n"
        for number, expression in enumerate(expressions)))
    must([promtool, "check", "rules", recorded])
    done("promtool: rules and expressions are valid, and the rules say what they should of made-up figures")


class Served:
    """What /metrics says after a call of each kind."""

    def __init__(self, arguments, stack):
        authority = Authority(arguments.directory / "authority")
        # One of a cluster, so that it has the metrics of clusters too.
        [port] = free_ports(1)
        cluster = (f'\n[cluster]\nlisten = "127.0.0.1:{port}"\nmembers = ["127.0.0.1:{port}"]\n'
                   'secret_file = "cluster.secret"\n')
        environment = write_environment(arguments.directory / "environment", authority, authority.pair("own"), cluster)
        secret = environment / "cluster.secret"
        secret.write_text("0123456789abcdef0123456789abcdef\n")
        secret.chmod(0o600)
        front = serve(stack, arguments.binary, environment)
        admin = front.admin()
        admin.create("iris", [model(stack)])
        admin.wait_for("iris")
        caller = Caller(front.https, authority.context())
        for key in (admin.keys("iris")["primaryKey"], "wrong"):
            caller.score("iris", key)
        caller.close()
        text = admin.send("GET", "/metrics").body.decode()
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        self.family_of = {family + suffix: family + SUFFIXES[kind][0].replace("_bucket", "")
                          for family, kind in kinds.items() for suffix in SUFFIXES[kind]}
        self.samples, self.families = set(self.family_of), set(self.family_of.values())
        self.labels = {}
        for name, labels in re.findall(r"^(scorefront_\w+)\{([^}]*)\} ", text, re.MULTILINE):
            self.labels.setdefault(self.family_of[name], set()).update(re.findall(r'(\w+)="', labels))


def documented_metrics():
    """Each metric of the table, and its labels."""
    found = {}
    pages = [(ROOT / "docs" / page).read_text() for page in ("metrics.md", "kubernetes.md")]
    for line in "".join(pages).splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= 5 and cells[1].startswith("`scorefront_"):
            for name in NAME.findall(cells[1]):
                found[name] = {label.strip() for label in cells[3].split(",")} - {""}
    return found


def dashboard_expressions():
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expect(len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), "two panels have one id")
    return expressions


def bare(expression):
    """As Grafana fills it in."""
    return expression.replace("$__rate_interval", "5m").replace("$service", ".*").replace("$deployment", ".*")


def find_promtool(arguments):
    if found := shutil.which("promtool"):
        return found
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "promtool"
    if not (folder / "usr/bin/promtool").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if run(["apt-get", "download", "-q", "prometheus"], cwd=folder).returncode:
            must(["apt-get", "update", "-q"])
            must(["apt-get", "download", "-q", "prometheus"], cwd=folder)
        [archive] = folder.glob("prometheus_*.deb")
        must(["dpkg-deb", "--extract", archive, folder])
    return folder / "usr/bin/promtool"


if __name__ == "__main__":
    main(__doc__, monitoring)
