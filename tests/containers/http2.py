"""One HTTP/2 connection of a caller, frame by frame: what becomes of each stream, and what the server says of its going away
(GOAWAY), is not left to a library, which would try again or give up by itself."""

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
# What says that there will be no more streams soon, and that those that are on their way are taken.
LAST_OF_ALL = 2**31 - 1
# What either side may send at first, of all streams together.
WINDOW = 65535


class Lost(Exception):
    """A call that will not be answered over this connection."""


class Connection:
    def __init__(self, stream):
        self.stream, self.buffer = stream, b""
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.next_id, self.window = 1, WINDOW
        # By stream: the status and what there is of the answer.
        self.answers = {}
        # What each GOAWAY had as the last stream.
        self.going_away = []
        self.stream.sendall(PREFACE)
        self.send(SETTINGS)

    def send(self, kind, flags=0, stream_id=0, payload=b""):
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")
        self.stream.sendall(head + payload)

    def post(self, fields, body):
        """Begins a call on the stream `next_id`, for which there has to be room."""
        stream_id, self.next_id = self.next_id, self.next_id + 2
        self.answers[stream_id] = [None, b""]
        self.window -= len(body)
        self.send(HEADERS, END_HEADERS, stream_id, self.encoder.encode(fields))
        self.send(DATA, END_STREAM, stream_id, body)

    @property
    def begun(self):
        """How many calls there were."""
        return self.next_id // 2

    def has_room(self, body):
        return self.window >= len(body)

    def read(self):
        """Takes in the next frame. What is over by it: pairs of a stream and its answer, or why there is none."""
        kind, flags, stream_id, payload = self.frame()
        over = []
        if kind == HEADERS:
            if not flags & END_HEADERS:
                raise Lost("the head of an answer in several frames")
            status = dict(self.decoder.decode(payload)).get(":status")
            self.answers[stream_id][0] = self.answers[stream_id][0] or status
        elif kind == DATA:
            self.answers[stream_id][1] += payload
            if payload:
                self.send(WINDOW_UPDATE, payload=len(payload).to_bytes(4, "big"))
        elif kind == RST_STREAM:
            # After an answer that came before the body was read, it takes nothing back.
            if stream_id in self.answers:
                over.append((stream_id, Lost(f"RST_STREAM {int.from_bytes(payload, 'big')}")))
        elif kind == SETTINGS and not flags & ACK:
            self.send(SETTINGS, ACK)
        elif kind == PING and not flags & ACK:
            self.send(PING, ACK, payload=payload)
        elif kind == WINDOW_UPDATE and stream_id == 0:
            self.window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            last, error = (int.from_bytes(payload[at:at + 4], "big") for at in (0, 4))
            self.going_away.append(last)
            if error:
                raise Lost(f"GOAWAY with error {error}")
            over += [(one, Lost(f"not taken: GOAWAY {self.going_away}, stream {one}")) for one in self.answers if one > last]
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            over.append((stream_id, tuple(self.answers[stream_id])))
        for one, _ in over:
            del self.answers[one]
        return over

    def frame(self):
        head = self.take(9)
        return head[3], head[4], int.from_bytes(head[5:9], "big") & LAST_OF_ALL, self.take(int.from_bytes(head[:3], "big"))

    def take(self, count):
        while len(self.buffer) < count:
            more = self.stream.recv(65536)
            if not more:
                raise Lost("the connection was closed")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def close(self):
        self.stream.close()
