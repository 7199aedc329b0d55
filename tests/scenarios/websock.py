"""A WebSocket client that can also do what none should, and a node that speaks through one.

Written from RFC 6455 and docs/PROTOCOL.md alone, on sockets of the standard library.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import tempfile

from . import ed25519, lab
from .frame import PATIENCE, Failure, equal, true
from .wire import discover

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Certificate:
    """A self-signed certificate in a folder of its own; `names` become its DNS names."""

    def __init__(self, names=("localhost",), kind="ec", days=30):
        self.folder = tempfile.TemporaryDirectory(prefix="beacon-tls-")
        self.cert, self.key = (os.path.join(self.folder.name, n) for n in ("cert.pem", "key.pem"))
        self.make(names, kind, days)

    def make(self, names, kind="ec", days=30):
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-newkey", kind]
        alt = ",".join("DNS:" + n for n in names) + ",IP:127.0.0.1"
        subprocess.run(["openssl", "req", "-x509", *new, "-nodes", "-keyout", self.key, "-out", self.cert, "-days",
                        str(days), "-subj", "/CN=" + names[0], "-addext", "subjectAltName=" + alt],
                       check=True, capture_output=True)
        os.chmod(self.key, 0o600)

    def flags(self):
        return "--tls-cert", self.cert, "--tls-key", self.key

    def close(self):
        self.folder.cleanup()


class Stream:
    """One TCP or TLS connection with its own input buffer."""

    def __init__(self, beacon, listener="wss", tls=True, source=None, sni="localhost", first=b"", space=None,
                 options=0, receive_buffer=None):
        with lab.inside(space):
            self.socket = socket.socket(socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(PATIENCE)
        beacon.keep(self)
        self.socket.connect(beacon.at[listener][0])
        self.at = self.socket.getsockname()[:2]
        self.input = b""
        if first:
            self.socket.sendall(first)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.options |= options
            self.socket = context.wrap_socket(self.socket, server_hostname=sni)

    def send(self, raw):
        self.socket.sendall(raw)

    def more(self):
        """False at the end of their stream."""
        got = self.socket.recv(65536)
        self.input += got
        return bool(got)

    def take(self, count):
        while len(self.input) < count:
            if not self.more():
                raise EOFError
        taken, self.input = self.input[:count], self.input[count:]
        return taken

    def head(self):
        """(status, {field: value}) of an answer."""
        while b"\r\n\r\n" not in self.input:
            if not self.more():
                raise EOFError
        head, self.input = self.input.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            fields[name.lower()] = value
        return int(lines[0].split(" ", 2)[1]), fields

    def ask(self, method="GET", path="/", fields=(), body=b""):
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: localhost", *fields]
        self.send("\r\n".join(lines + ["", ""]).encode() + body)
        return self.head()

    def ended(self, seconds=PATIENCE):
        """Their stream ends, whatever comes before."""
        self.socket.settimeout(seconds)
        try:
            while self.more():
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self):
        self.socket.close()


def upgrade_fields(subprotocols=("pilot.v1",), more=(), key="dGhlIHNhbXBsZSBub25jZQ=="):
    fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key]
    return fields + (["Sec-WebSocket-Protocol: " + ", ".join(subprotocols)] if subprotocols else []) + list(more)


class WebSocket(Stream):
    def upgrade(self, subprotocols=("pilot.v1",), more=()):
        key = base64.b64encode(os.urandom(16)).decode()
        status, fields = self.ask("GET", "/v1/compat", upgrade_fields(subprotocols, more, key))
        equal(status, 101, "status of the upgrade")
        want = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        equal(fields.get("sec-websocket-accept"), want, "Sec-WebSocket-Accept")
        return fields

    def frame(self, opcode, payload=b"", fin=True, rsv=0, masked=True):
        first = (0x80 if fin else 0) | rsv << 4 | opcode
        size, mark = len(payload), 0x80 if masked else 0
        if size < 126:
            head = struct.pack(">BB", first, mark | size)
        elif size < 65536:
            head = struct.pack(">BBH", first, mark | 126, size)
        else:
            head = struct.pack(">BBQ", first, mark | 127, size)
        if not masked:
            return head + payload
        mask = os.urandom(4)
        number = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return head + mask + number.to_bytes(size, "big")

    def say(self, opcode, payload=b"", **how):
        self.send(self.frame(opcode, payload, **how))

    def hear(self, seconds=PATIENCE, what="a frame"):
        """(opcode, payload); a frame of a server is never masked nor in parts here."""
        self.socket.settimeout(seconds)
        try:
            first, size = self.take(2)
            true(first & 0x70 == 0 and first & 0x80, "frame head of the beacon: %02x" % first)
            true(not size & 0x80, "the beacon's frames are not masked")
            if size == 126:
                size, = struct.unpack(">H", self.take(2))
            elif size == 127:
                size, = struct.unpack(">Q", self.take(8))
            return first & 15, self.take(size)
        except TimeoutError:
            raise Failure("%s did not arrive over the WebSocket" % what) from None
        except EOFError:
            raise Failure("%s did not arrive: the WebSocket has ended" % what) from None

    def closes(self, status, reason=None, seconds=PATIENCE):
        """Skips data until the close frame, which must say so; then the stream ends."""
        while True:
            opcode, payload = self.hear(seconds, "the close frame")
            if opcode == CLOSE:
                break
        equal(struct.unpack(">H", payload[:2])[0], status, "close status")
        if reason is not None:
            equal(payload[2:].decode(), reason, "close reason")
        true(self.ended(), "the connection ends behind the close frame")


def auth_text(version, node, challenge, host="localhost", exporter=b"", old=False):
    if version == 2:
        return "compat_auth2:%d:%s:%d:%d:%s:%s" % (challenge["beacon_id"], host, node, challenge["ts"],
                                                   challenge["nonce"], exporter.hex())
    if old:
        return "compat_auth:%d:%s" % (node, challenge["nonce"])
    return "compat_auth:%d:%d:%s" % (node, challenge["ts"], challenge["nonce"])


def auth_reply(node, secret, text, key=None):
    key = key or ed25519.public(secret)
    return json.dumps({"type": "auth_reply", "node_id": node, "public_key": base64.b64encode(key).decode(),
                       "sig": base64.b64encode(ed25519.sign(secret, text.encode())).decode()}).encode()


class WsNode(WebSocket):
    """A node that is reached over its WebSocket."""

    def __init__(self, beacon, node, secret, old=False, key=None, authenticate=True, **how):
        super().__init__(beacon, **how)
        self.node, self.secret = node, secret
        self.upgrade()
        self.challenge = self.json("the challenge")
        equal(self.challenge.get("type"), "auth_challenge", "type of the first message")
        if authenticate:
            self.reply(old, key)
            equal(self.json("auth_ok"), {"type": "auth_ok"}, "answer to the authentication")

    def json(self, what):
        opcode, payload = self.hear(what=what)
        if opcode == CLOSE:
            raise Failure("closed instead of %s: %s" % (what, payload))
        equal(opcode, TEXT, "opcode of %s" % what)
        return json.loads(payload)

    def reply(self, old=False, key=None):
        text = auth_text(1, self.node, self.challenge, old=old)
        self.say(TEXT, auth_reply(self.node, self.secret, text, key))

    def expect(self, want, what):
        opcode, payload = self.hear(what=what)
        equal((opcode, payload), (BINARY, want), what)

    def fence(self):
        """Everything said before has been decided when this is answered."""
        self.say(BINARY, discover(self.node))
        return self.hear(what="reply to a Discover over the WebSocket")

    def silent(self, what="nothing"):
        opcode, payload = self.fence()
        true(opcode == BINARY and payload[:1] == b"\x02", "wanted silence after %s, got %s" % (what, payload[:60].hex()))


def keys_file(beacon_or_folder, nodes):
    """A keys file of {node: secret}; returns its path."""
    path = os.path.join(beacon_or_folder, "keys")
    with open(path, "w") as f:
        for node, secret in nodes.items():
            f.write("%d %s\n" % (node, base64.b64encode(ed25519.public(secret)).decode()))
    return path
