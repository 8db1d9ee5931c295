"""The model servers: how each is started, what it is asked, and what it is known to do.

What a server does is a fact about the pinned version, measured anew by every run; docs/protocols.md tells operators.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).resolve().parent / "models"
JSON, OCTETS = "application/json", "application/octet-stream"
# What a health check meets besides a status.
REFUSED, SILENT, ENDED = "refused", "silent", "ended"


@dataclass
class Server:
    """A server of one protocol. Paths are its own, which is what the preset is compared with."""

    protocol: str
    score: str
    health: str
    # Of (venv, folder, port): writes what the server reads, and gives its command line and environment.
    start: Callable
    # The body of a call for some rows of numbers, and the sums in its answer.
    body: Callable
    sums: Callable
    # The answer to a model that raises.
    error: int
    # What the health path may say before the model answers, and says with a model that cannot be loaded.
    loading: set
    broken: str | tuple
    # Whether it says anything while the model works, how many calls at a time, whether connections stay open.
    answers_while_busy: bool
    parallel: bool
    keeps_connections: bool
    # Another content type, a body of it, and the status and (where it matters) body of the answer.
    other: tuple
    # A path below the scoring path, and its status.
    below: tuple
    # What the health path's body holds when the model is ready.
    healthy: bytes = b""
    stub: bool = False
    # A program it needs besides Python.
    program: str = ""


def instances(rows):
    return json.dumps({"instances": rows}).encode()


def predictions(answer):
    return json.loads(answer)["predictions"]


def azureml(venv, folder, port):
    shutil.copy(MODELS / "score.py", folder)
    return [venv / "bin/azmlinfsrv", "--entry_script", "score.py", "--port", port], {}


def mlflow(venv, folder, port):
    # Its program starts others by name.
    environment = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    write = f"{venv / 'bin/python'} {MODELS / 'pyfunc.py'} model"
    serve = f"exec {venv / 'bin/mlflow'} models serve -m model --env-manager local -h 127.0.0.1 -p {port}"
    return ["sh", "-c", f"{write} && {serve}"], environment


def mlserver(venv, folder, port):
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "iris", "implementation": "mlserver_runtime.Flower"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [venv / "bin/mlserver", "start", "."], {}


def kserve(venv, _folder, port):
    return [venv / "bin/python", MODELS / "kserve_server.py", "--http_port", port], {}


def torchserve(venv, folder, port):
    (folder / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\ngrpc_inference_port={port + 3}\n"
        f"grpc_management_port={port + 4}\ndefault_workers_per_model=1\ndisable_token_authorization=true\n")
    archive = (f"{venv / 'bin/torch-model-archiver'} --model-name iris --version 1.0 --handler {MODELS / 'handler.py'}"
               f" --extra-files {MODELS / 'flower.py'} --export-path .")
    serve = (f"exec {venv / 'bin/torchserve'} --foreground --ncs --model-store . --models iris=iris.mar"
             " --ts-config config.properties --disable-token-auth")
    environment = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(folder), "TEMP": str(folder),
                   "PYTHONPATH": f"{MODELS}:{MODELS / 'standin'}"}
    return ["sh", "-c", f"{archive} && {serve}"], environment


def multi_model_server(venv, folder, port):
    (folder / "iris").mkdir()
    for name in ("handler.py", "flower.py"):
        shutil.copy(MODELS / name, folder / "iris")
    (folder / "mms.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        "default_service_handler=handler.py:handle\ndefault_workers_per_model=1\ndecode_input_request=false\n"
        "enable_envvars_config=true\n")
    environment = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(folder), "TEMP": str(folder)}
    return [venv / "bin/multi-model-server", "--start", "--foreground", "--model-store", folder, "--models",
            "iris=iris", "--mms-config", "mms.properties"], environment


def tfserving_stub(_venv, _folder, port):
    return [sys.executable, MODELS / "tfserving_stub.py", port], {}


SERVERS = [
    Server("azureml", "/score", "/", azureml, lambda rows: json.dumps({"data": rows}).encode(), json.loads, error=500,
           loading={REFUSED, SILENT}, broken=ENDED, answers_while_busy=False, parallel=False, keeps_connections=False,
           other=(OCTETS, b"\0\xff\n", 200, b"\n\xff\0"), below=("/x", 404), healthy=b"Healthy"),
    Server("sagemaker", "/invocations", "/ping", multi_model_server, instances, json.loads, error=503,
           loading={REFUSED, SILENT, 200}, broken=(200, b"Unhealthy"), answers_while_busy=True, parallel=False,
           keeps_connections=True, other=(OCTETS, b"\0\xff\n", 200, b"\n\xff\0"), below=("/x", 404),
           healthy=b'"Healthy"', program="java"),
    Server("torchserve", "/predictions/iris", "/ping", torchserve, instances, json.loads, error=503,
           loading={REFUSED, SILENT, 200}, broken=(200, b'"Healthy"'), answers_while_busy=True, parallel=False,
           keeps_connections=True, other=(OCTETS, b"\0\xff\n", 200, b"\n\xff\0"), below=("/1.0", 200),
           healthy=b'"Healthy"', program="java"),
    Server("tfserving", "/v1/models/iris:predict", "/v1/models/iris/metadata", tfserving_stub, instances, predictions,
           error=400, loading={REFUSED, 404}, broken=(404, b"Servable not found"), answers_while_busy=True,
           parallel=True, keeps_connections=True,
           other=(OCTETS, b"\0\xff\n", 400, None), below=("/x", 404), healthy=b'"model_spec"', stub=True),
    Server("mlflow", "/invocations", "/ping", mlflow,
           lambda rows: json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": rows}}).encode(), predictions,
           error=400, loading={REFUSED}, broken=ENDED, answers_while_busy=True, parallel=True, keeps_connections=True,
           other=("text/csv", b"a,b\n2,1\n", 200, b'{"predictions": [3.0]}'), below=("/x", 404)),
    Server("kserve-v2", "/v2/models/iris/infer", "/v2/models/iris/ready", mlserver,
           lambda rows: json.dumps({"id": "call-7", "inputs": [
               {"name": "x", "shape": [len(rows), 2], "datatype": "FP64", "data": sum(rows, [])}]}).encode(),
           lambda answer: json.loads(answer)["outputs"][0]["data"], error=500, loading={REFUSED, 400}, broken=ENDED,
           answers_while_busy=True, parallel=False, keeps_connections=True, other=(OCTETS, b"\0\1", 422, None),
           below=("/x", 404)),
    Server("kserve-v1", "/v1/models/iris:predict", "/v1/models/iris", kserve, instances, predictions, error=500,
           loading={REFUSED}, broken=ENDED, answers_while_busy=False, parallel=False, keeps_connections=True,
           other=(OCTETS, b"\0\xff\n", 400, None), below=("/x", 404), healthy=b'"ready":true'),
]
