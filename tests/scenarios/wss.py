"""Nodes over WebSocket: HTTP, authentication, relays in all directions, moving, closing, limits."""

import contextlib
import os
import signal
import socket
import struct
import time

from .frame import SLOW, Failure, equal, eventually, scenario, true
from .websock import (BINARY, CLOSE, PING, PONG, TEXT, Certificate, Stream, WebSocket, WsNode, auth_reply, auth_text,
                      keys_file, upgrade_fields)
from .wire import (A, B, SECRET1, SECRET2, Node, address, delivered, delivered_dest, discover, discover_ex, grant, punch,
                   relay, unix_now)

C = 777
SECRET3 = bytes(range(32))
NODES = {A: SECRET1, B: SECRET2, C: SECRET3}


@contextlib.contextmanager
def serving(case, *flags, plain=False, certificate=None, nodes=NODES, **how):
    """A beacon with a WSS listener whose keys file has A, B and C."""
    own = certificate or Certificate()
    listen = ("--wss", "127.0.0.1:0", *own.flags())
    if plain:
        listen += ("--wss-plain", "127.0.0.1:0")
    more = ("--keys", keys_file(own.folder.name, nodes)) if nodes else ()
    try:
        with case.beacon(*listen, *more, *flags, **how) as b:
            yield b
    finally:
        if not certificate:
            own.close()


def delivered_to(node, message, what):
    node.expect(message, what)


@scenario()
def http(case):
    with serving(case, plain=True) as b:
        for listener, tls in (("wss", True), ("wss-plain", False)):
            s = Stream(b, listener, tls)
            status, fields = s.ask("GET", "/v1/compat")
            equal(status, 426, "plain GET of /v1/compat")
            equal(fields.get("upgrade"), "websocket", "Upgrade of a 426")
            equal("strict-transport-security" in fields, tls, "Strict-Transport-Security over TLS only")
            equal(s.ask("GET", "/health")[0], 200, "/health")
            equal(s.ask("GET", "/elsewhere")[0], 404, "another path")
            equal(s.ask("POST", "/v1/compat", ["Content-Length: 0"])[0], 405, "POST /v1/compat")
        for more, want in ((["Origin: https://localhost"], 101), (["Origin: https://evil.example"], 403),
                           (["Origin: pilot://app"], 101), (["Origin: null"], 403)):
            equal(Stream(b).ask("GET", "/v1/compat", upgrade_fields(more=more))[0], want, "status with %s" % more)
        equal(Stream(b).ask("GET", "/v1/compat", [f.replace("13", "8") for f in upgrade_fields()])[0], 426,
              "another version")
        equal(WebSocket(b).upgrade(("other", "pilot.v1")).get("sec-websocket-protocol"), "pilot.v1", "subprotocol")
        equal(WebSocket(b).upgrade(()).get("sec-websocket-protocol"), None, "no subprotocol offered")
        equal(b.metric("beacon_wss_authentications_total", result="ok"), 0, "nobody has authenticated")


@scenario()
def authentication(case):
    with serving(case, "--beacon-id", "42") as b:
        WsNode(b, A, SECRET1)
        WsNode(b, A, SECRET1, old=True)
        equal(b.metric("beacon_wss_authentications_total", result="ok"), 2, "authentications")
        for what, node, secret in (("another's key", A, SECRET2), ("an id without a key", 4242, SECRET1)):
            s = WsNode(b, node, secret, authenticate=False)
            s.reply()
            s.closes(1008, "auth failed")
        for what, raw in (("no JSON", b"hello"), ("another type", b'{"type":"auth_ok"}'), ("nothing", b""),
                          ("an array", b"[]"), ("node 0", b'{"type":"auth_reply","node_id":0,"sig":""}')):
            s = WsNode(b, A, SECRET1, authenticate=False)
            s.say(TEXT, raw)
            s.closes(1008, "auth failed")
        s = WsNode(b, A, SECRET1, authenticate=False)
        s.say(BINARY, relay(A, B))
        s.closes(1008, "auth failed")
        replayed = WsNode(b, A, SECRET1, authenticate=False)
        text = auth_text(1, A, WsNode(b, A, SECRET1, authenticate=False).challenge)
        replayed.say(TEXT, auth_reply(A, SECRET1, text))
        replayed.closes(1008, "auth failed")
        equal(b.metric("beacon_wss_authentications_total", result="failed"), 9, "refused authentications")


@scenario()
def authentication_v2(case):
    with serving(case, "--beacon-id", "42", "--wss-legacy-auth=false") as b:
        equal(Stream(b).ask("GET", "/v1/compat", upgrade_fields())[0], 403, "pilot.v1 where only version 2 is taken")
        for change, good in (({}, True), ({"host": "other.example"}, False), ({"exporter": bytes(32)}, False),
                             ({"version": 1}, False)):
            s = WsNode.__new__(WsNode)
            WebSocket.__init__(s, b)
            equal(s.upgrade(("beacon.v2", "pilot.v1")).get("sec-websocket-protocol"), "beacon.v2", "subprotocol")
            challenge = s.json("the challenge")
            equal(challenge.get("beacon_id"), 42, "beacon_id in the challenge")
            equal(challenge.get("exporter"), True, "exporter in the challenge")
            said = {"version": 2, "host": "localhost", "exporter": exporter_of(s)}
            said.update(change)
            s.say(TEXT, auth_reply(A, SECRET1, auth_text(said["version"], A, challenge, said["host"], said["exporter"])))
            if good:
                equal(s.json("auth_ok"), {"type": "auth_ok"}, "version 2")
            else:
                s.closes(1008, "auth failed")


def exporter_of(stream):
    """RFC 9266 by OpenSSL itself: Python's ssl has no call for it."""
    import ctypes
    import ctypes.util
    library = ctypes.CDLL(ctypes.util.find_library("ssl"))
    # The SSL pointer stands behind the object's head and its socket (CPython 3.11: PySSLSocket.ssl).
    pointer = ctypes.c_void_p.from_address(id(stream.socket._sslobj) + object.__basicsize__ + 8).value
    out, label = ctypes.create_string_buffer(32), b"EXPORTER-Channel-Binding"
    library.SSL_export_keying_material.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                                   ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    equal(library.SSL_export_keying_material(pointer, out, 32, label, len(label), None, 0, 0), 1, "exporter")
    return out.raw


@scenario(shards=(1, 4))
def relays_all_ways(case):
    with serving(case) as b:
        udp = Node(b).register(C)
        wa, wb = WsNode(b, A, SECRET1), WsNode(b, B, SECRET2)
        wa.fence(), wb.fence()
        for size in (0, 1, 124, 125, 126, 1200, 1400, 9000, 40000):
            payload = bytes(i * 31 & 255 for i in range(size))
            udp.send(relay(C, A, payload))
            wa.expect(delivered(C, payload), "UDP to WSS, %d bytes" % size)
            wa.say(BINARY, relay(A, B, payload))
            wb.expect(delivered(A, payload), "WSS to WSS, %d bytes" % size)
            if size <= 9000:
                wb.say(BINARY, relay(B, C, payload))
                udp.expect(delivered(B, payload), "WSS to UDP, %d bytes" % size)
        wa.say(BINARY, relay(A, A, b"myself"))
        wa.expect(delivered(A, b"myself"), "to itself")
        for node, first, want in ((wa, discover_ex(A), delivered_dest(C, A, b"x")), (wa, discover(A), delivered(C, b"x"))):
            node.say(BINARY, first)
            equal(node.hear()[1], address(2, node.at), "DiscoverReply over WSS")
            eventually("0x08 counts", lambda: answer_after(udp, relay(C, A, b"x"), node) == want)


def answer_after(udp, message, node):
    udp.send(message)
    return node.hear()[1]


@scenario(shards=(1, 4))
def order_over_wss(case):
    """What one flow sends arrives in order, in bursts too."""
    free = ("--relay-rate", "0", "--relay-ip-rate", "0")
    with serving(case, *free) as b:
        udp = Node(b).register(C)
        wa = WsNode(b, A, SECRET1)
        wa.fence()
        got = []
        for number in range(400):
            udp.send(relay(C, A, struct.pack(">I", number) + bytes(number * 7 % 1200)))
            if number % 50 == 49:  # more at once may be too much for the beacon's receive buffer
                got += [struct.unpack_from(">I", wa.hear()[1], 5)[0] for _ in range(50)]
        equal(got, list(range(400)), "order of deliveries")
        wa.send(b"".join(wa.frame(BINARY, relay(A, C, struct.pack(">I", n))) for n in range(200)))
        got = [struct.unpack_from(">I", udp.receive(), 5)[0] for _ in range(200)]
        equal(got, list(range(200)), "order of relays out of one WebSocket")


@scenario(shards=(1, 4))
def speaks_for_itself_only(case):
    with serving(case) as b:
        udp, wa = Node(b).register(C), WsNode(b, A, SECRET1)
        wa.fence()
        for forged in (relay(B, C, b"x"), discover(B), discover_ex(C), discover(0), punch(B, C), punch(C, A)):
            wa.say(BINARY, forged)
        wa.silent("forged ids")
        udp.silent(what="a WSS node that speaks for others")
        b.counts("other", "forged_id", 6)
        udp.send(relay(C, A, b"still"))
        wa.expect(delivered(C, b"still"), "the row of C is as it was")


@scenario(shards=(1, 4))
def punches(case):
    """Commands name UDP endpoints, so they reach the side whose peer has one."""
    with serving(case) as b:
        udp, wa, wb = Node(b).register(C), WsNode(b, A, SECRET1), WsNode(b, B, SECRET2)
        wa.fence(), wb.fence()
        wa.say(BINARY, punch(A, C))
        wa.expect(address(4, udp.at), "command to the WSS side")
        udp.silent(what="a punch of a WSS node: it has no UDP endpoint")
        wa.say(BINARY, punch(A, B))
        wa.silent("a punch between two WSS nodes")
        b.counts("punch", "no_endpoint", 1)
        udp.send(punch(C, B))
        wb.expect(address(4, udp.at), "command to the WSS target")


@scenario(shards=(1, 4))
def moves_between_transports(case):
    with serving(case, "--takeover-silence", "90s") as b:
        peer, node = Node(b).register(C), Node(b).register(A)
        peer.send(relay(C, A, b"1"))
        node.expect(delivered(C, b"1"), "by UDP")
        ws = WsNode(b, A, SECRET1)  # its key is in the file: at once
        ws.fence()
        eventually("relays reach the WebSocket", lambda: reached(peer, ws, b"2"))
        node.drain(0.1)  # what was relayed before its owner had heard of the move
        node.silent(what="the UDP side it has left")
        node.send(discover(A))
        node.receive(what="reply, though refused")
        b.counts("discover", "conflict", 1)
        eventually("still at the WebSocket", lambda: reached(peer, ws, b"3"))
        ws.close()
        eventually("UDP works at once", lambda: back_on_udp(peer, node))


def reached(peer, ws, payload):
    peer.send(relay(C, A, payload))
    try:
        return ws.hear(0.3)[1] == delivered(C, payload)
    except Failure:
        return False


def back_on_udp(peer, node):
    node.send(discover(A))
    node.drain(0.05)
    peer.send(relay(C, A, b"4"))
    return delivered(C, b"4") in node.drain(0.1)


@scenario()
def replaced(case):
    with serving(case) as b:
        udp, first = Node(b).register(C), WsNode(b, A, SECRET1)
        first.fence()
        second = WsNode(b, A, SECRET1)
        first.closes(1000, "replaced")
        second.fence()
        for _ in range(20):
            udp.send(relay(C, A, b"to the newer"))
            second.expect(delivered(C, b"to the newer"), "after the older one has gone")
        equal(b.metric("beacon_wss_sessions"), 1, "sessions")


@scenario()
def bad_frames(case):
    with serving(case) as b:
        long = [dict(opcode=BINARY, payload=b"x", fin=False)] + [dict(opcode=0, payload=b"", fin=False)] * 16
        for what, status, frames in (
                ("unmasked", 1002, [dict(opcode=BINARY, payload=b"x", masked=False)]),
                ("reserved bit", 1002, [dict(opcode=BINARY, payload=b"x", rsv=4)]),
                ("unknown opcode", 1002, [dict(opcode=3, payload=b"x")]),
                ("continuation of nothing", 1002, [dict(opcode=0, payload=b"x")]),
                ("a ping in parts", 1002, [dict(opcode=PING, payload=b"x", fin=False)]),
                ("a long ping", 1002, [dict(opcode=PING, payload=bytes(126))]),
                ("a close of one byte", 1002, [dict(opcode=CLOSE, payload=b"x")]),
                ("text that is no UTF-8", 1007, [dict(opcode=TEXT, payload=b"\xff")]),
                ("too big", 1009, [dict(opcode=BINARY, payload=bytes(65537))]),
                ("too big in parts", 1009, [dict(opcode=BINARY, payload=bytes(40000), fin=False),
                                            dict(opcode=0, payload=bytes(40000))]),
                ("too many parts", None, long),
                ("pings without end", 1008, [dict(opcode=PING)] * 200)):
            s = WsNode(b, A, SECRET1)
            try:
                s.send(b"".join(s.frame(**f) for f in frames))
            except OSError:
                pass  # it may be closed before all is sent
            opcode, payload = PONG, b""
            while opcode != CLOSE:
                opcode, payload = s.hear(what="the close frame after " + what)
            got = struct.unpack(">H", payload[:2])[0]
            true(got in ((1008, 1009) if status is None else (status,)), "close status after %s: %d" % (what, got))
        s = WsNode(b, A, SECRET1)
        s.say(PING, b"hello")
        equal(s.hear(), (PONG, b"hello"), "answer to a ping")
        s.say(TEXT, b"ignored")
        s.say(BINARY, b"")
        whole = relay(A, A, bytes(100))
        s.say(BINARY, whole[:7], fin=False)
        s.say(PING, b"between")
        s.say(0, whole[7:60], fin=False)
        s.say(0, whole[60:])
        equal(s.hear(), (PONG, b"between"), "a ping between the parts")
        s.expect(delivered(A, bytes(100)), "a message in parts")
        s.say(CLOSE, struct.pack(">H", 1000))
        s.closes(1000)
        eventually("no session is left", lambda: b.metric("beacon_wss_sessions") == 0)


@scenario()
def slow_reader(case):
    """One node reads nothing: it loses its own frames, and nobody else waits for it."""
    free = ("--relay-rate", "0", "--relay-ip-rate", "0")
    with serving(case, *free, "--wss-queue", "128KiB") as b:
        udp, slow = Node(b).register(C), WsNode(b, A, SECRET1, receive_buffer=4096)
        good = WsNode(b, B, SECRET2)
        slow.fence(), good.fence()
        worst = 0.0
        for number in range(300 if SLOW else 3000):
            udp.send(relay(C, A, struct.pack(">I", number) + bytes(1200)))
            if number % 25 == 0:
                asked = time.monotonic()
                udp.send(relay(C, B, struct.pack(">I", number)))
                good.expect(delivered(C, struct.pack(">I", number)), "to the healthy one")
                worst = max(worst, time.monotonic() - asked)
        true(worst < (1.0 if SLOW else 0.25), "the healthy one waited %.3f s" % worst)
        if not SLOW:
            eventually("frames were dropped", lambda: b.metric("beacon_wss_frames_dropped_total") > 0)
        got = []
        try:
            while True:
                got.append(struct.unpack_from(">I", slow.hear(0.5)[1], 5)[0])
        except Failure:
            pass
        equal(got, sorted(set(got)), "order of what the slow one still got")
        true(len(got) > 50, "the slow one lives and got %d frames" % len(got))
        udp.send(relay(C, A, b"again"))
        slow.expect(delivered(C, b"again"), "the slow one has caught up")


@scenario()
def first_use(case):
    with serving(case, "--wss-first-use", nodes=None) as b:
        WsNode(b, 31, SECRET1).fence()
        s = WsNode(b, 31, SECRET2, authenticate=False)
        s.reply()
        s.closes(1008, "auth failed")
        WsNode(b, 31, SECRET1).fence()
        WsNode(b, 32, SECRET2).fence()


@scenario()
def keys_are_read_again(case):
    with serving(case, nodes={A: SECRET1}) as b:
        path = b.flags[b.flags.index("--keys") + 1]
        for old in (True, False):
            s = WsNode(b, B, SECRET2, authenticate=False)
            s.reply()
            if old:
                s.closes(1008, "auth failed")
                withdrawn = WsNode(b, A, SECRET1)
                keys_file(os.path.dirname(path), {B: SECRET2})
                b.signal(signal.SIGHUP)
                b.wait_log("reloaded")
                withdrawn.closes(1008, "key withdrawn")
            else:
                equal(s.json("auth_ok"), {"type": "auth_ok"}, "a key that came with a reload")
        with open(path, "a") as f:
            f.write("12 nonsense\n")
        b.signal(signal.SIGHUP)
        line = b.wait_log("reload refused, the old configuration stays")
        true("keys:2" in line["error"], "the error names file and line: %s" % line["error"])
        WsNode(b, B, SECRET2)
        equal(b.metric("beacon_wss_closed_total", reason="key_withdrawn"), 1, "sessions that ended for it")


@scenario()
def keys_file_goes_before_first_use(case):
    """A session by first use is over when the file gives its id to another key; others stay."""
    with serving(case, "--wss-first-use", nodes={B: SECRET2}) as b:
        path = b.flags[b.flags.index("--keys") + 1]
        same, other, none = WsNode(b, A, SECRET1), WsNode(b, C, SECRET1), WsNode(b, 31, SECRET1)
        keys_file(os.path.dirname(path), {A: SECRET1, C: SECRET2})
        b.signal(signal.SIGHUP)
        b.wait_log("reloaded")
        other.closes(1008, "key withdrawn")
        same.fence()
        none.fence()
        WsNode(b, C, SECRET2).fence()
        equal(b.metric("beacon_wss_closed_total", reason="key_withdrawn"), 1, "sessions that ended for it")


@scenario()
def drain(case):
    with serving(case, "--drain-time", "2s") as b:
        a, n = WsNode(b, A, SECRET1), Node(b).register(C)
        b.signal(signal.SIGUSR1)
        a.closes(1001, "beacon shutting down", seconds=8)
        equal(b.get("/readyz")[0], 503, "/readyz while draining")
        equal(Stream(b).ask("GET", "/v1/compat", upgrade_fields())[0], 503, "upgrade while draining")
        n.see(discover(C))
        b.signal(signal.SIGUSR1)
        eventually("ready again", lambda: b.get("/readyz")[0] == 200)
        a = WsNode(b, A, SECRET1)
        b.signal(signal.SIGTERM)
        a.closes(1001, "beacon shutting down")
        b.wait_exit(0)


@scenario()
def behind_a_proxy(case):
    trusted = ("--proxy-protocol-from", "127.0.0.1")
    with serving(case, *trusted, plain=True) as b:
        for listener, tls in (("wss", True), ("wss-plain", False)):
            for first, want in ((b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n", ("203.0.113.7", 40000)),
                                (b"PROXY TCP6 2001:db8::7 2001:db8::1 40001 443\r\n", ("2001:db8::7", 40001))):
                s = WsNode(b, A, SECRET1, listener=listener, tls=tls, first=first)
                equal(s.fence(), (BINARY, address(2, want)), "DiscoverReply names the client of the proxy")
        for first in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"\x16\x03\x01"):
            s = Stream(b, "wss-plain", tls=False, first=first)
            true(s.ended(8), "no PROXY header: closed")
        true(b.metric("beacon_proxy_bad_total") >= 2, "bad headers are counted")
        s = WsNode(b, A, SECRET1, source="127.0.0.2")  # not trusted, so it must not say PROXY
        equal(s.fence(), (BINARY, address(2, s.at)), "an untrusted source speaks for itself")


@scenario()
def source_caps(case):
    with serving(case, "--wss-per-ipv4", "3", "--wss-handshake-rate", "1000/1000") as b:
        held = [WsNode(b, A, SECRET1, source="127.0.0.9"), WsNode(b, B, SECRET2, source="127.0.0.9"),
                WsNode(b, C, SECRET3, source="127.0.0.9")]
        try:
            over = not WebSocket(b, source="127.0.0.9")
        except OSError:
            over = True
        true(over, "a fourth connection of the same source is refused")
        WsNode(b, A, SECRET1, source="127.0.0.10").fence()
        held[1].fence()


@scenario()
def handshake_budget(case):
    with serving(case, "--wss-handshake-rate", "1/5") as b:
        made, began = 0, time.monotonic()
        for _ in range(20):
            try:
                Stream(b, source="127.0.0.9").close()
                made += 1
            except OSError:
                pass
        took = time.monotonic() - began
        true(5 <= made <= 6 + took, "handshakes of one source within its budget: %d in %.1f s" % (made, took))
        WsNode(b, A, SECRET1, source="127.0.0.10").fence()
        equal(b.metric("beacon_tls_handshakes_total", result="limited"), 20 - made, "the others are counted")
        true(made < 20, "none was refused in %.1f s" % took)


@scenario()
def no_answer_to_the_challenge(case):
    with serving(case) as b:
        began = time.monotonic()
        s = WsNode(b, A, SECRET1, authenticate=False)
        s.closes(1008, "auth failed", seconds=20)
        true(9 < time.monotonic() - began < (18 if SLOW else 13), "authentication ends after 10 s")
        equal(b.metric("beacon_wss_authentications_total", result="timeout"), 1, "counted")


@scenario(shards=(1, 4))
def grants_with_proven_keys(case):
    """The key that a session has proved is the one that its grants are checked with."""
    with serving(case, "--require-punch-token") as b:
        udp, wb = Node(b).register(C), WsNode(b, B, SECRET2)
        wb.fence()
        expiry = unix_now() + 60
        udp.send(punch(C, B, grant(SECRET1, C, B, expiry)))
        wb.silent("a grant signed with another key")
        b.counts("punch", "grant_bad", 1)
        udp.send(punch(C, B, grant(SECRET2, C, B, expiry)))
        wb.expect(address(4, udp.at), "the command after a good grant")


@scenario()
def no_source_of_keys(case):
    certificate = Certificate()
    try:
        from .beacon import run
        from .frame import BUILD
        code, _, err = run(BUILD, "--addr", "127.0.0.1:0", "--wss", "127.0.0.1:0", *certificate.flags())
        equal(code, 78, "exit code: nobody could authenticate")
        true("keys" in err, "the error says what is missing: %s" % err)
    finally:
        certificate.close()


@scenario()
def client_that_is_gone(case):
    with serving(case) as b:
        s = WsNode(b, A, SECRET1)
        s.fence()
        s.close()
        eventually("its session is gone at once", lambda: b.metric("beacon_wss_sessions") == 0)


@scenario()
def silent_ones_give_way(case):
    """Strangers that take every place for the unauthenticated and say nothing do not keep a node out."""
    with serving(case, "--wss-sessions", "640", plain=True) as b:
        b.signal(signal.SIGSTOP)  # they come at once, however long it takes to make them
        crowd = [WebSocket(b, "wss-plain", tls=False, source="127.0.0.%d" % (20 + number % 5)) for number in range(65)]
        for s in crowd:
            s.send("\r\n".join(["GET /v1/compat HTTP/1.1", "Host: localhost", *upgrade_fields(), "", ""]).encode())
        b.signal(signal.SIGCONT)
        equal(sorted(s.head()[0] for s in crowd), [101] * 64 + [503], "65 that come just now for 64 places")
        equal(b.metric("beacon_wss_authentications_total", result="timeout"), 0, "none of them gave way")
        time.sleep(1.2)
        WsNode(b, A, SECRET1).fence()
        eventually("one of them was asked no longer",
                   lambda: b.metric("beacon_wss_authentications_total", result="timeout") == 1)
