"""Runs in a container: scores without a pause. Of the callers over HTTP/1.1 half keep their connections, half make a new one
for each call; those over HTTP/2 have several calls at a time on a connection, and half of them keep it for as long as the server
lets them, half make a new one after a few. Nothing is ever tried again. On SIGTERM it says what became of the calls, as one line of JSON.

    python3 load.py --connect ADDRESS:PORT --name CNAME --ca FILE --key KEY --callers 8 --http2-callers 4
"""

import argparse
import http.client
import json
import signal
import socket
import ssl
import threading
import time

import http2

PATH = "/api/v1/service/iris/score"
# Calls at a time of a caller over HTTP/2.
STREAMS = 4
# Calls over one of its connections, if it does not keep them.
FEW = 8
PATIENCE = 30


class Site:
    """The address that stands for the name, as DNS would say it."""

    def __init__(self, arguments):
        host, port = arguments.connect.rsplit(":", 1)
        self.to, self.name, self.ca = (host, int(port)), arguments.name, arguments.ca
        self.contexts = {}
        for protocol in ("http/1.1", "h2"):
            self.contexts[protocol] = ssl.create_default_context(cafile=arguments.ca)
            self.contexts[protocol].set_alpn_protocols([protocol])

    def connect(self, protocol):
        raw = socket.create_connection(self.to, PATIENCE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = self.contexts[protocol].wrap_socket(raw, server_hostname=self.name)
        if stream.selected_alpn_protocol() != protocol:
            raise OSError(f"asked for {protocol}, got {stream.selected_alpn_protocol()}")
        return stream


class Http1(http.client.HTTPConnection):
    def __init__(self, site):
        super().__init__(site.name, 443, timeout=PATIENCE)
        self.site, self.serial = site, None

    def connect(self):
        self.sock = self.site.connect("http/1.1")
        self.serial = self.sock.getpeercert()["serialNumber"]


class Caller(threading.Thread):
    protocol = None

    def __init__(self, number, arguments, site, over):
        super().__init__(daemon=True)
        self.number, self.arguments, self.site, self.over = number, arguments, site, over
        self.count, self.times, self.failures, self.serials = 0, [], [], {}
        self.is_kept = number % 2 == 0

    def next_body(self):
        self.count += 1
        return self.count, json.dumps({"data": [[self.number, self.count]]}).encode()

    def answered(self, call, begun, serial, status, said):
        right = status == 200 and json.loads(said) == [self.number + call]
        self.note(begun, serial, None if right else f"{status} {said.decode(errors='replace')[:200]}")

    def note(self, begun, serial, failure):
        took = time.monotonic() - begun
        self.serials[serial] = self.serials.get(serial, 0) + 1
        if failure:
            self.failures.append({"at": time.time(), "took": round(took, 3), "how": self.how(), "what": failure})
        else:
            self.times.append(took)


class Http1Caller(Caller):
    protocol = "http/1.1"

    def how(self):
        return f"HTTP/1.1, {'kept' if self.is_kept else 'new'}"

    def run(self):
        connection = Http1(self.site)
        fields = {"authorization": f"Bearer {self.arguments.key}", "content-type": "application/json"}
        while not self.over.is_set():
            (call, body), begun, is_over = self.next_body(), time.monotonic(), False
            try:
                connection.request("POST", PATH, body, fields)
                answer = connection.getresponse()
                self.answered(call, begun, connection.serial, answer.status, answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                is_over = True
                self.note(begun, connection.serial, f"{type(error).__name__}: {error}")
            if is_over or not self.is_kept:
                connection.close()
            self.over.wait(self.arguments.pause)
        connection.close()


class Http2Caller(Caller):
    protocol = "h2"

    def __init__(self, *words):
        super().__init__(*words)
        self.connections = self.told = self.abrupt = 0

    def how(self):
        return f"HTTP/2, connection {self.connections}"

    def run(self):
        fields = [(":method", "POST"), (":scheme", "https"), (":authority", self.site.name), (":path", PATH),
                  ("authorization", f"Bearer {self.arguments.key}"), ("content-type", "application/json")]
        while not self.over.is_set():
            self.connections += 1
            begun = time.monotonic()
            try:
                stream = self.site.connect("h2")
                connection, serial = http2.Connection(stream), stream.getpeercert()["serialNumber"]
            except OSError as error:
                self.note(begun, None, f"{type(error).__name__}: {error}")
                self.over.wait(self.arguments.pause)
                continue
            self.use(connection, serial, fields)
            self.told += bool(connection.going_away)
            self.abrupt += connection.going_away[:1] not in ([], [http2.LAST_OF_ALL])
            connection.close()

    def use(self, connection, serial, fields):
        """Until the server goes away, or it was enough, and every call on the connection is over."""
        def is_ending():
            return connection.going_away or self.over.is_set() or (not self.is_kept and connection.begun >= FEW)

        calls, (call, body) = {}, self.next_body()
        try:
            while True:
                while not is_ending() and len(calls) < STREAMS and connection.has_room(body):
                    calls[connection.next_id] = (call, time.monotonic())
                    connection.post([*fields, ("content-length", str(len(body)))], body)
                    call, body = self.next_body()
                if is_ending() and not calls:
                    return
                for stream_id, answer in connection.read():
                    answered, begun = calls.pop(stream_id)
                    if isinstance(answer, http2.Lost):
                        self.note(begun, serial, str(answer))
                    else:
                        status, said = answer
                        self.answered(answered, begun, serial, int(status), said)
                    # So that calls of one connection begin and end at all times.
                    self.over.wait(self.arguments.pause / STREAMS)
        except (OSError, http2.Lost, ValueError) as error:
            for _, begun in calls.values():
                self.note(begun, serial, f"{type(error).__name__}: {error}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("--connect", "--name", "--ca", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--http2-callers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.02)
    arguments = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    site = Site(arguments)
    kinds = [Http1Caller] * arguments.callers + [Http2Caller] * arguments.http2_callers
    callers = [kind(number, arguments, site, over) for number, kind in enumerate(kinds)]
    begun = time.monotonic()
    for caller in callers:
        caller.start()
    over.wait()
    for caller in callers:
        caller.join(PATIENCE + 10)
    times = sorted(took for caller in callers for took in caller.times)
    serials = {}
    for caller in callers:
        for serial, count in caller.serials.items():
            serials[serial] = serials.get(serial, 0) + count
    failures = [failure for caller in callers for failure in caller.failures]
    over_http2 = [caller for caller in callers if caller.protocol == "h2"]
    print(json.dumps({
        "calls": len(times) + len(failures), "failed": len(failures), "failures": failures[:20],
        "seconds": round(time.monotonic() - begun, 1), "serials": serials,
        # Connections over HTTP/2, those that the server said goodbye to, and those of them to which it did so without leaving
        # time for calls that were on their way.
        "http2": {"calls": sum(len(caller.times) + len(caller.failures) for caller in over_http2),
                  **{key: sum(getattr(caller, key) for caller in over_http2) for key in ("connections", "told", "abrupt")}},
        "p50_ms": round(times[len(times) // 2] * 1e3, 1) if times else None,
        "p99_ms": round(times[len(times) * 99 // 100] * 1e3, 1) if times else None,
        "longest_ms": round(times[-1] * 1e3, 1) if times else None,
    }), flush=True)


if __name__ == "__main__":
    main()
