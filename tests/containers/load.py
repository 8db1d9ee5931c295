"""Runs in a container: scores without a pause, half of the callers over connections that they keep, half over a new one
for each call. Nothing is ever tried again. On SIGTERM it says what became of the calls, as one line of JSON.

    python3 load.py --connect ADDRESS:PORT --name CNAME --ca FILE --key KEY --callers 8
"""

import argparse
import http.client
import json
import signal
import socket
import ssl
import threading
import time

PATH = "/api/v1/service/iris/score"


class Connection(http.client.HTTPSConnection):
    """To the address that stands for the name, as DNS would say it."""

    def __init__(self, arguments, context):
        super().__init__(arguments.name, 443, timeout=30, context=context)
        host, port = arguments.connect.rsplit(":", 1)
        self.to, self.serial = (host, int(port)), None

    def connect(self):
        raw = socket.create_connection(self.to, self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context.wrap_socket(raw, server_hostname=self.host)
        self.serial = self.sock.getpeercert()["serialNumber"]


class Caller(threading.Thread):
    def __init__(self, number, arguments, context, over):
        super().__init__(daemon=True)
        self.number, self.arguments, self.context, self.over = number, arguments, context, over
        self.is_kept = number % 2 == 0
        self.times, self.failures, self.serials = [], [], {}

    def run(self):
        connection = Connection(self.arguments, self.context)
        count = 0
        while not self.over.is_set():
            count += 1
            body = json.dumps({"data": [[self.number, count]]})
            begun, failure = time.monotonic(), None
            try:
                connection.request("POST", PATH, body, {"authorization": f"Bearer {self.arguments.key}",
                                                        "content-type": "application/json"})
                answer = connection.getresponse()
                said = answer.read().decode()
                if answer.status != 200 or json.loads(said) != [self.number + count]:
                    failure = f"{answer.status} {said[:200]}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
            took = time.monotonic() - begun
            self.serials[connection.serial] = self.serials.get(connection.serial, 0) + 1
            if failure:
                self.failures.append({"at": time.time(), "took": round(took, 3), "kept": self.is_kept, "what": failure})
            else:
                self.times.append(took)
            if failure or not self.is_kept:
                connection.close()
            self.over.wait(self.arguments.pause)
        connection.close()


def main():
    parser = argparse.ArgumentParser()
    for name in ("--connect", "--name", "--ca", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.02)
    arguments = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    context = ssl.create_default_context(cafile=arguments.ca)
    callers = [Caller(number, arguments, context, over) for number in range(arguments.callers)]
    begun = time.monotonic()
    for caller in callers:
        caller.start()
    over.wait()
    for caller in callers:
        caller.join(40)
    times = sorted(took for caller in callers for took in caller.times)
    serials = {}
    for caller in callers:
        for serial, count in caller.serials.items():
            serials[serial] = serials.get(serial, 0) + count
    failures = [failure for caller in callers for failure in caller.failures]
    print(json.dumps({
        "calls": len(times) + len(failures), "failed": len(failures), "failures": failures[:20],
        "seconds": round(time.monotonic() - begun, 1), "serials": serials,
        "p50_ms": round(times[len(times) // 2] * 1e3, 1) if times else None,
        "p99_ms": round(times[len(times) * 99 // 100] * 1e3, 1) if times else None,
        "longest_ms": round(times[-1] * 1e3, 1) if times else None,
    }), flush=True)


if __name__ == "__main__":
    main()
