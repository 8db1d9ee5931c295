"""KServe's own server: `kserve_server.py --http_port N`, for V1 and V2."""

import flower
import kserve


class Flower(kserve.Model):
    def load(self):
        flower.load()
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": flower.predict(payload["instances"])}


if __name__ == "__main__":
    model = Flower("iris")
    model.load()
    kserve.ModelServer(enable_grpc=False).start([model])
