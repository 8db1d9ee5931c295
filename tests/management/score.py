"""azureml-inference-server-http: an entry script that says what it takes, so that `service usage` has an example."""

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("data", StandardPythonParameterType([[5.1, 3.5, 1.4, 0.2]]))
@output_schema(StandardPythonParameterType([10.2]))
def run(data):
    return [round(sum(row), 6) for row in data]
