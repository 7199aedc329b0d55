"""Clients of the TCP edge that mean harm: false identities, floods, resets, and a registry that lies."""

import base64
import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import struct
import threading
import time

from . import ed25519
from .frame import SLOW, Failure, equal, eventually, scenario, true
from .websock import BINARY, PING, TEXT, Stream, WsNode
from .wire import A, B, SECRET1, SECRET2, Node, delivered, discover, discover_ex, punch, relay
from .wss import C, serving

FREE = ("--relay-rate", "0", "--relay-ip-rate", "0")
MANY = ("--wss-per-ipv4", "100000", "--wss-handshake-rate", "100000/100000", "--wss-handshake-total", "100000/100000")


def reset(stream):
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def all_gone(b, connections):
    """What sessions held has come back. The connection that asks is one, too."""
    eventually("no session is left", lambda: b.metric("beacon_wss_sessions") == 0)
    eventually("nobody is half authenticated", lambda: b.metric("beacon_wss_connections_waiting") == 0)
    eventually("nothing waits for slow readers", lambda: b.metric("beacon_wss_queued_bytes") == 0)
    eventually("connections are closed", lambda: b.metric("beacon_http_connections") <= connections)


@scenario(shards=(1, 4))
def first_use_against_a_holder(case):
    """Whoever invents a key for an id that a node holds by UDP gets neither its traffic nor its name."""
    with serving(case, "--wss-first-use", "--strict-relay-source", nodes=None, plain=True) as b:
        holder, peer = Node(b, "127.0.0.2").register(A), Node(b).register(C)
        thief = WsNode(b, A, SECRET1)
        eventually("the owner has refused", lambda: b.metric("beacon_session_registrations_refused_total") == 1)
        peer.send(relay(C, A, b"for the holder"))
        holder.expect(delivered(C, b"for the holder"), "relay to the id")
        thief.say(BINARY, relay(A, C, b"in its name"))
        thief.say(BINARY, punch(A, C))
        thief.silent("relay and punch in the holder's name")
        peer.silent(what="what the thief says")
        b.counts("relay", "sender_mismatch", 1)
        holder.send(relay(A, C, b"itself"))
        peer.expect(delivered(A, b"itself"), "the holder speaks on")


@scenario(shards=(1, 4))
def datagrams_from_a_session(case):
    """The same address and port by UDP is not the session, whatever it says."""
    with serving(case, "--strict-relay-source", plain=True) as b:
        peer, ws = Node(b).register(C), WsNode(b, A, SECRET1, listener="wss-plain", tls=False)
        ws.fence()
        twin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        twin.bind(ws.at)
        b.keep(twin)
        for forged in (relay(A, C, b"x"), discover_ex(A), discover(A, bytes(range(32))), punch(A, C)):
            twin.sendto(forged, b.udp)
        b.counts("relay", "sender_mismatch", 1)
        b.counts("discover", "conflict", 2)
        b.counts("punch", "requester_refused", 1)
        peer.silent(what="what the twin says")
        peer.send(relay(C, A, b"to the session"))
        ws.expect(delivered(C, b"to the session"), "its row is as it was")


@scenario(shards=(1, 4))
def races_for_one_id(case):
    """Of two sockets that authenticate for one id at the same moment one stays, and is the one that is reached."""
    with serving(case, *MANY, plain=True) as b:
        peer = Node(b).register(C)
        for number in range(20):
            both = [WsNode(b, A, SECRET1, listener="wss-plain", tls=False, authenticate=False) for _ in range(2)]
            for s in both:
                s.reply()
            eventually("one is replaced", lambda: b.metric("beacon_wss_closed_total", reason="replaced") >= number + 1)
            equal(b.metric("beacon_wss_sessions"), 1, "sessions")
            peer.send(relay(C, A, b"%d" % number))
            equal(sum(heard(s, delivered(C, b"%d" % number)) for s in both), 1, "who heard it")
            for s in both:
                reset(s)
            eventually("both are gone", lambda: b.metric("beacon_wss_sessions") == 0)


def heard(s, message):
    """The one that was replaced ends, so neither is waited for in vain."""
    try:
        while True:
            if s.hear() == (BINARY, message):
                return True
    except (Failure, OSError):
        return False


def unless_reset(test):
    """A beacon whose places are all taken may turn a newcomer away, whoever it is: it has to ask again."""
    def asked():
        try:
            return test()
        except (OSError, EOFError, http.client.HTTPException):
            return None
    return asked


@scenario()
def full_of_resets(case):
    """All places are taken; sessions that still had something to say break, and newcomers come, in one turn."""
    places = 64 + 1024
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    with serving(case, *FREE, *MANY, "--wss-first-use", "--wss-sessions", "64", nodes=None, plain=True) as b:
        udp = Node(b).register(C)
        how = {"listener": "wss-plain", "tls": False}
        stuck = [WsNode(b, 1000 + i, SECRET1, receive_buffer=2048, **how) for i in range(8)]
        end = time.monotonic() + 5
        while b.metric("beacon_wss_queued_bytes") < 8 * 100000 and time.monotonic() < end:
            for i in range(8):
                udp.send(relay(C, 1000 + i, bytes(9000)))
        idle = [Stream(b, **how) for _ in range(places)]
        b.signal(signal.SIGSTOP)
        for s in stuck:
            reset(s)
        for _ in range(24):
            s = socket.socket()
            s.setblocking(False)
            b.keep(s)
            with contextlib.suppress(BlockingIOError):
                s.connect(b.at["wss-plain"][0])
        b.signal(signal.SIGCONT)
        eventually("their sessions are gone", unless_reset(lambda: b.metric("beacon_wss_sessions") == 0))
        for s in idle:
            s.close()
        eventually("a node has a place again", unless_reset(lambda: WsNode(b, A, SECRET1, **how).fence()))


@scenario(shards=(1, 4))
def everything_at_once(case):
    """Clients that break off at any moment, while nodes by UDP send to them: all comes back, UDP goes on."""
    seed = int.from_bytes(os.urandom(4), "big")
    with serving(case, *FREE, *MANY, "--wss-queue", "128KiB", "--wss-queue-total", "2MiB", plain=True) as b:
        udp, over = Node(b).register(C), time.monotonic() + (6 if SLOW else 3)
        errors = []
        threads = [threading.Thread(target=rage, args=(b, random.Random(seed + i), over, errors)) for i in range(4)]
        for t in threads:
            t.start()
        while time.monotonic() < over:
            for node in (A, B):
                for size in (0, 1200, 8000):
                    udp.send(relay(C, node, bytes(size)))
            time.sleep(0.002)
        for t in threads:
            t.join()
        if errors:
            raise Failure("seed %d: %s" % (seed, errors[0]))
        all_gone(b, 1)
        udp.send(relay(C, C, b"still here"))
        udp.drain(0.05)


def rage(b, chance, over, errors):
    secrets = {A: SECRET1, B: SECRET2}
    while time.monotonic() < over and not errors:
        node = chance.choice((A, B))
        try:
            rage_once(b, chance, node, secrets[node])
        except (OSError, EOFError, Failure):
            pass  # it was replaced, refused or broken off: whatever comes back to the beacon counts
        except Exception as error:
            errors.append(repr(error))


def rage_once(b, chance, node, secret):
    tls = chance.random() < 0.3
    s = WsNode(b, node, secret, listener="wss" if tls else "wss-plain", tls=tls, authenticate=False,
               receive_buffer=chance.choice((None, 2048)))
    try:
        rage_on(s, chance, node)
    finally:
        chance.choice((reset, Stream.close))(s)


def rage_on(s, chance, node):
    if chance.random() < 0.2:
        s.send(os.urandom(chance.randrange(1, 3000)))
        return
    s.reply()
    if chance.random() < 0.2:
        return
    for _ in range(chance.randrange(10)):
        whole = relay(node, chance.choice((A, B, C)), os.urandom(chance.choice((0, 100, 1200, 20000))))
        what = chance.randrange(5)
        if what == 0:
            s.say(BINARY, whole)
        elif what == 1:
            s.say(BINARY, whole[:7], fin=False)
            s.say(PING, b"between")
            s.say(0, whole[7:], fin=chance.random() < 0.7)
        elif what == 2:
            s.send(s.frame(BINARY) * 300)
        elif what == 3:
            s.say(BINARY, chance.choice((discover(node), discover_ex(node), punch(node, C), discover(C), os.urandom(30))))
        else:
            s.hear(0.02)


@scenario()
def no_descriptors(case):
    """Out of descriptors for a while: UDP and sessions do not notice, and it ends with the need."""
    with serving(case, plain=True) as b:
        udp, ws = Node(b).register(C), WsNode(b, A, SECRET1)
        ws.fence()
        used = len(os.listdir("/proc/%d/fd" % b.process.pid))
        limit = resource.prlimit(b.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(b.process.pid, resource.RLIMIT_NOFILE, (used + 20, limit[1]))
        crowd = []
        for _ in range(60):
            s = socket.socket()
            s.setblocking(False)
            b.keep(s)
            with contextlib.suppress(BlockingIOError):
                s.connect(b.at["wss-plain"][0])
            crowd.append(s)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            udp.send(relay(C, C, b"x"))
            udp.expect(delivered(C, b"x"), "UDP without descriptors")
            ws.say(BINARY, relay(A, A, b"x"))
            ws.expect(delivered(A, b"x"), "a session without descriptors")
            time.sleep(0.02)
        for s in crowd:
            s.close()
        eventually("places are free again", unless_reset(lambda: WsNode(b, B, SECRET2).fence()))
        true(b.metric("beacon_http_connections_refused_total") > 0, "descriptors did run out")


class Registry:
    """Plays the registry; what it answers is `manner`'s choice. One thread a connection."""

    def __init__(self, dialect):
        self.dialect, self.manner, self.asked = dialect, "good", 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.at = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.socket.accept()[0]
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        def exactly(count):
            got = b""
            while len(got) < count:
                more = connection.recv(count - len(got))
                if not more:
                    raise EOFError
                got += more
            return got

        with contextlib.suppress(OSError, EOFError), connection:
            if self.dialect == "binary":
                exactly(5)
            while True:
                body = exactly(struct.unpack(">I", exactly(4))[0])
                node = struct.unpack(">I", body[1:5])[0] if self.dialect == "binary" else json.loads(body)["node_id"]
                self.asked += 1
                if self.manner == "closes":
                    return
                connection.sendall(self.answer(node))

    def answer(self, node):
        raw = {"garbage": os.urandom(5000), "endless": b"\xff" * 5000, "empty": bytes(4),
               "giant": struct.pack(">I", 1 << 20) + bytes(1 << 20)}
        if self.manner in raw:
            return raw[self.manner]
        key, named = ed25519.public(SECRET1), node + (self.manner == "of another")
        if self.dialect == "binary":
            body = b"\x82" + struct.pack(">IB", named, 0) + bytes(6) + b"\x20" + key
            if self.manner == "cut":
                body = body[:-1]
        else:
            body = json.dumps({"node_id": named, "public_key": base64.b64encode(key).decode()}).encode()
            if self.manner == "cut":
                body = body[:-2]
        return struct.pack(">I", len(body)) + body

    def close(self):
        self.socket.close()


def registry_lies(case, dialect):
    registry = Registry(dialect)
    with contextlib.closing(registry):
        flags = ("--registry", registry.at, "--registry-lookup", dialect, "--wss-first-use")
        with serving(case, *flags, nodes=None, plain=True) as b:
            how = {"listener": "wss-plain", "tls": False}
            node = 5000
            for manner in ("of another", "cut", "giant", "empty", "endless", "garbage", "closes"):
                registry.manner = manner
                node += 1
                s = WsNode(b, node, SECRET1, authenticate=False, **how)
                s.reply()
                s.closes(1008, "auth failed")
                registry.manner = "good"
                eventually("it works again after " + manner, lambda: admitted(b, node, how))
            s = WsNode(b, node, SECRET2, authenticate=False, **how)
            s.reply()
            s.closes(1008, "auth failed")
            equal(b.metric("beacon_keys_pinned"), 0, "nothing that it said made first use of a key")


def admitted(b, node, how):
    s = WsNode(b, node, SECRET1, authenticate=False, **how)
    s.reply()
    return s.hear()[0] == TEXT


@scenario()
def registry_lies_in_binary(case):
    registry_lies(case, "binary")


@scenario()
def registry_lies_in_json(case):
    registry_lies(case, "json")
