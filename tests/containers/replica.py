"""Runs in a container: a model that adds up the numbers it is given, takes a while for it, and closes each connection. On
SIGTERM it takes no more, finishes what it has, and ends. `GET /seen` says how many calls it had, and at once.

    python3 replica.py --port 5001 --milliseconds 10
"""

import argparse
import http.server
import json
import signal
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # An answer is sent in one piece, so that a network that is cut has all of it or nothing.
    wbufsize = -1

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(self.server.seen())

    def do_POST(self):
        with self.server.counting():
            data = json.loads(self.rfile.read(int(self.headers["content-length"])))["data"]
            time.sleep(self.server.seconds)
        # Whoever has read the answer may send the next call before this thread comes to say that it is done.
        self.answer([sum(row) for row in data])

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Ended only when every call is.
    daemon_threads, block_on_close, request_queue_size = False, True, 128

    def __init__(self, port, seconds):
        super().__init__(("0.0.0.0", port), Handler)
        self.seconds, self.lock = seconds, threading.Lock()
        self.calls = self.at_once = self.most_at_once = 0

    def counting(self):
        server = self

        class Counting:
            def __enter__(self):
                with server.lock:
                    server.calls += 1
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)

            def __exit__(self, *_):
                with server.lock:
                    server.at_once -= 1

        return Counting()

    def seen(self):
        with self.lock:
            return {"calls": self.calls, "at_once": self.at_once, "most_at_once": self.most_at_once}

    def handle_error(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--milliseconds", type=float, default=10)
    arguments = parser.parse_args()
    server = Server(arguments.port, arguments.milliseconds / 1000)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
