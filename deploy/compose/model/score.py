"""Which iris it is: the kind whose mean flower is nearest (sepal length and width, petal length and width, in cm)."""

import json

MEANS = {
    "setosa": (5.006, 3.428, 1.462, 0.246),
    "versicolor": (5.936, 2.770, 4.260, 1.326),
    "virginica": (6.588, 2.974, 5.552, 2.026),
}


def init():
    """There is nothing to load."""


def run(raw_data):
    def distance(flower, kind):
        return sum((is_ - mean) ** 2 for is_, mean in zip(flower, MEANS[kind], strict=True))

    return [min(MEANS, key=lambda kind: distance(flower, kind)) for flower in json.loads(raw_data)["data"]]
