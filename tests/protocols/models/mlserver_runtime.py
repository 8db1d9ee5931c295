"""MLServer: a runtime of one's own, for the open inference protocol (V2)."""

import asyncio

import flower
import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Flower(MLModel):
    async def load(self):
        # Off the loop, so that the server answers while a model loads.
        await asyncio.to_thread(flower.load)
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).tolist()
        sums = NumpyCodec.encode_output("sums", numpy.array(flower.predict(rows)))
        return InferenceResponse(model_name=self.name, outputs=[sums])
