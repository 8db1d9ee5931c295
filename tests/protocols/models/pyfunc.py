"""MLflow: writes a model for `mlflow models serve` into the folder that is named."""

import sys

import flower
import mlflow


class Flower(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        flower.load()

    def predict(self, context, model_input, params=None):
        return flower.predict(model_input.to_numpy().tolist())


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Flower(), pip_requirements=[])
