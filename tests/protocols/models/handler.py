"""TorchServe, and the multi-model-server of SageMaker's containers: a handler, called with a batch of requests."""

import json

import flower

OCTETS = "application/octet-stream"
loaded = False


def handle(data, context):
    global loaded
    if not loaded:
        flower.load()
        loaded = True
    # The first call is for loading alone.
    return data and [answer(item, index, context) for index, item in enumerate(data)]


def answer(item, index, context):
    body = item.get("body")
    if context.get_request_header(index, "content-type") == OCTETS:
        context.set_response_content_type(index, OCTETS)
        return bytes(body[::-1])
    # TorchServe has parsed JSON already, the other hands on bytes.
    return flower.predict((body if isinstance(body, dict) else json.loads(bytes(body)))["instances"])
