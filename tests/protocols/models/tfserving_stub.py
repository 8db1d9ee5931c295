"""TensorFlow Serving's RESTful API, as documented: PyPI and Debian have its server in no form.

Paths, bodies and the 404 of an unknown model are those of https://www.tensorflow.org/tfx/serving/api_rest. The page
does not say with which status a model is told of that loads or failed to. In tensorflow_serving's source,
get_model_status_impl.cc knows no error but that of a model without versions, so it is 200 and the `state`;
get_model_metadata_impl.cc needs a loaded servable, as a prediction does, so it is the 404 of one. That this stub answers
calls at the same time, and keeps connections, is its own doing and no finding about the server.
"""

import http.server
import json
import sys
import threading

import flower

STATUS, PREDICT = "/v1/models/iris", "/v1/models/iris:predict"
version = {"version": "1", "state": "LOADING", "status": {"error_code": "OK", "error_message": ""}}


def load():
    try:
        flower.load()
        version["state"] = "AVAILABLE"
    except RuntimeError as error:
        version.update(state="END", status={"error_code": "NOT_FOUND", "error_message": str(error)})


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == STATUS:
            self.say(200, {"model_version_status": [version]})
        elif path == f"{STATUS}/metadata" and version["state"] == "AVAILABLE":
            spec = {"name": "iris", "signature_name": "", "version": "1"}
            self.say(200, {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {}}}})
        elif path.endswith("/metadata"):
            self.say(404, {"error": f"Servable not found for request: Latest({path.split('/')[3]})"})
        elif path.startswith("/v1/models/") and ":" not in path:
            self.say(404, {"error": f"Could not find any versions of model {path.rsplit('/', 1)[1]}"})
        else:
            self.say(404, {"error": f"Malformed request: GET {path}"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        if not path.endswith(":predict"):
            return self.say(404, {"error": f"Malformed request: POST {path}"})
        if path not in (PREDICT, "/v1/models/iris/versions/1:predict") or version["state"] != "AVAILABLE":
            model = path.split("/")[3].partition(":")[0]
            return self.say(404, {"error": f"Servable not found for request: Latest({model})"})
        try:
            self.say(200, {"predictions": flower.predict(json.loads(body)["instances"])})
        except (ValueError, KeyError) as error:
            self.say(400, {"error": str(error)})

    def say(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    threading.Thread(target=load).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
