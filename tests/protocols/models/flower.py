"""The one model of all servers: the sum of each row. Two first numbers are orders, to see a failure and a long call.

How it loads is said in MODEL_LOADS: seconds to take, or `never`, which raises.
"""

import os
import time

RAISES, SLEEPS = -1, -2


def load():
    loads = os.environ.get("MODEL_LOADS", "0")
    if loads == "never":
        raise RuntimeError("no such file: model.bin")
    time.sleep(float(loads))


def predict(rows):
    order, number = rows[0][:2]
    if order == RAISES:
        raise ValueError("no such flower")
    if order == SLEEPS:
        time.sleep(number)
    return [float(sum(row)) for row in rows]
