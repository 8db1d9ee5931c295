"""azureml-inference-server-http: an entry script."""

import json

import flower
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    flower.load()


@rawhttp
def run(request):
    if request.headers.get("content-type") == "application/octet-stream":
        return AMLResponse(request.get_data()[::-1], 200, {"content-type": "application/octet-stream"})
    return flower.predict(json.loads(request.get_data())["data"])
