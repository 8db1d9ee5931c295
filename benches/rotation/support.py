"""What rotate.py and cnames.py share: starting programs, and a small caller for HTTP/1.1 and HTTP/2."""

import json
import os
import socket
import ssl
import struct
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = "/api/v1/service/iris/score"
BODY = b'{"data": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.7, 3.1, 5.6, 2.4]]}'
ANSWER = '[{"class":"setosa","probability":0.9816},{"class":"versicolor","probability":0.8131}]'


# One CPU for what is measured, another one for everything else.
SERVER_CPU, *_, LOAD_CPU = sorted(os.sched_getaffinity(0)) * 2


def default_binary():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/scorefront"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(stack, command, cpu=LOAD_CPU, output=subprocess.DEVNULL, errors=subprocess.DEVNULL):
    """Starts a program on one CPU; it is ended by its process id when the stack is left."""
    process = subprocess.Popen(["taskset", "-c", str(cpu), *map(str, command)], stdin=subprocess.DEVNULL, stdout=output,
                               stderr=errors)

    def end():
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def wait_for(port, process, patience=30):
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.005)
    raise SystemExit(f"{process.args[3]} does not listen on port {port}")


def replica_config(work, port):
    """An nginx that answers every call with the same few bytes."""
    file = work / "replica.conf"
    file.write_text(
        f"worker_processes 1; daemon off; error_log /dev/null; pid {work}/replica.pid;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{port};"
        f" location / {{ default_type application/json; return 200 '{ANSWER}'; }} }} }}\n")
    return file


def admin(address, path, method="GET", timeout=30):
    """Status and JSON (or text) of what the admin listener answers."""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def percentile(figures, share):
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def caller_context(ca, alpn=None, version=None):
    context = ssl.create_default_context(cafile=str(ca))
    if alpn:
        context.set_alpn_protocols([alpn])
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def connect(context, name, port, session=None, timeout=5):
    """A verified connection: name, chain and the key that belongs to it."""
    tcp = socket.create_connection(("127.0.0.1", port), timeout)
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(tcp, server_hostname=name, session=session)
    except BaseException:
        tcp.close()
        raise


def serial_of(connection):
    return int(connection.getpeercert()["serialNumber"], 16)


class Broken(Exception):
    """What came is not the answer that was asked for."""


def call_http1(connection, name, close=False):
    """One scoring call; returns its status."""
    connection.sendall(
        f"POST {PATH} HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
        f"{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n".encode() + BODY)
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, body = received.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        body += receive(connection)
    return int(head.split(b" ")[1])


def call_http2(connection, name):
    """The only call of a new HTTP/2 connection; returns its status, or 0 if that is not one of HPACK's own."""
    def frame(kind, flags, stream, payload):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def literal(index, text):
        return bytes([index, len(text)]) + text

    # HPACK without a dynamic table: indexed fields, and literals under indexed names (RFC 7541 appendix A).
    head = b"\x83\x87" + literal(0x01, name.encode()) + literal(0x04, PATH.encode())
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, head) +
                       frame(0, 1, 1, BODY))
    received, status = b"", None
    while True:
        while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
            received += receive(connection)
        length = int.from_bytes(received[:3], "big")
        kind, flags, payload = received[3], received[4], received[9:9 + length]
        received = received[9 + length:]
        if kind == 1:
            while payload and payload[0] & 0xe0 == 0x20:
                payload = payload[1:]
            status = {0x88: 200, 0x8c: 400, 0x8d: 404, 0x8e: 500}.get(payload[0], 0)
        elif kind in (3, 7):
            raise Broken("the stream was reset" if kind == 3 else "GOAWAY before the answer")
        if kind in (0, 1) and flags & 1:
            return status
        if kind == 4 and not flags & 1:
            connection.sendall(frame(4, 1, 0, b""))


def receive(connection):
    part = connection.recv(65536)
    if not part:
        raise Broken("closed before the whole answer")
    return part
