"""What an operator watches: nodes, top talkers, the event stream, the metrics of the TCP edge."""

import json
import subprocess
import time

from .admin import ONE, Events, Keep, good, plain_at, told
from .frame import SLOW, equal, eventually, scenario, true, within
from .websock import BINARY, Certificate, Stream, WsNode
from .wire import A, SECRET1, SECRET2, Node, delivered, discover, relay
from .wss import C, serving


@scenario(io=ONE, shards=(1, 4))
def pages_of_nodes(case):
    """Every node of a large table is shown once, whatever the size of the pages."""
    many = 1000 if SLOW else 5000
    free = ("--reply-rate", "0", "--reply-total", "0", "--nodes-per-ipv4", "0", "--nodes-per-ipv4-24", "0",
            "--nursery-percent", "0")
    with case.beacon("--admin", "127.0.0.1:0", "--max-nodes", "16384", *free) as b:
        at, node = plain_at(b), Node(b)
        for number in range(1, many + 1):
            node.send(discover(number))
            if number % 100 == 0:
                for _ in range(100):
                    node.receive(what="a reply")
        b.counts("discover", "registered", many)
        out = good(at, "--json", "nodes").splitlines()
        seen = [n["node_id"] for line in out for n in json.loads(line)["nodes"]]
        equal((len(out) >= many // 1000, len(seen), set(seen)), (True, many, set(range(1, many + 1))), "nodes by beaconctl")
        for limit in (1000, 7 if not SLOW else 97):
            seen, after, asked = [], "", 0
            connection = Keep(b)
            while after is not None:
                page = connection.get("/v1/nodes?limit=%d%s" % (limit, after and "&after=" + after))
                true(len(page["nodes"]) <= limit, "no page is longer than was asked for")
                seen += [n["node_id"] for n in page["nodes"]]
                after, asked = page["next"], asked + 1
            equal((len(seen), set(seen)), (many, set(range(1, many + 1))), "nodes by pages of %d" % limit)
        for limit in (1, 999, 1000) + (() if SLOW else (1001,)):
            equal(len(good(at, "--limit", str(limit), "nodes").splitlines()), 1 + limit, "lines with --limit %d" % limit)
        began = time.monotonic()
        good(at, "nodes")
        true(time.monotonic() - began < (6 if SLOW else 2), "the list took %.1f s" % (time.monotonic() - began))


@scenario(io=ONE)
def talkers(case):
    """After a window of ten seconds the loud one is named first."""
    with serving(case, "--admin", "127.0.0.1:0", "--relay-rate", "0", "--relay-ip-rate", "0") as b:
        began = time.monotonic()
        at = plain_at(b)
        loud, calm, target, ws = Node(b).register(77), Node(b).register(78), Node(b).register(C), WsNode(b, A, SECRET1)
        for number in range(6000):
            loud.send(relay(77, C, bytes(1000)))
            if number % 20 == 0:
                calm.send(relay(78, C, bytes(100)))
            if number % 4 == 0:
                ws.say(BINARY, relay(A, C, bytes(500)))
            if number % 500 == 0:
                target.drain(0.001)
        ws.fence()
        eventually("the windows of the shard and of the edge end", lambda: len(told(at, "talkers")["talkers"]) >= 2,
                   seconds=13 - (time.monotonic() - began))
        named = told(at, "talkers")["talkers"]
        equal([(t["node_id"], t["endpoint"]) for t in named][:2], [(77, "%s:%d" % loud.at), (A, "%s:%d" % ws.at)],
              "the loud one and the second")
        within(named[0]["packets"], 4500, 7500, "its relays, an estimate")
        within(named[0]["bytes"] / named[0]["packets"], 990, 1015, "bytes of each")
        line = good(at, "talkers").splitlines()[1].split()
        equal(line[:2], ["77", "%s:%d" % loud.at], "the first line for people")
        within(int(line[2]), 450, 750, "its relays a second")


# --- the event stream ---

@scenario(io=ONE)
def events(case):
    """The status comes at once and each second; who comes back hears what it has missed, and nothing twice."""
    with serving(case, "--admin", "127.0.0.1:0") as b:
        s = Events(b)
        equal((s.status, s.fields["content-type"]), (200, "text/event-stream"), "head of the stream")
        began = time.monotonic()
        seen = [json.loads(f["data"]) for f in (s.next() for _ in range(3)) if f.get("event") == "status"]
        equal(len(seen), 3, "status after status")
        within(time.monotonic() - began, 1.5, 6 if SLOW else 3.2, "seconds for three of them")
        equal(seen[0].keys(), Keep(b).get("/v1/status").keys(), "the same figures as /v1/status has")
        good(plain_at(b), "drain")
        first, said = s.wait("drain", "draining")
        true(abs(said["unix_ms"] / 1000 - time.time()) < 60, "time of an event")
        s.close()
        good(plain_at(b), "undrain")
        good(plain_at(b), "reload")
        again = Events(b, "Last-Event-ID: " + first)
        ids = [again.wait(kind, text)[0] for kind, text in (("drain", "serving again"), ("reload", "taken"))]
        true(first not in ids and len(set(ids)) == 2, "only what was missed: %s after %s" % (ids, first))
        for known in ("0-0", "nonsense", "x" * 400, first.split("-")[0] + "-99999"):
            back = Events(b, "Last-Event-ID: " + known)
            equal(back.wait("drain", "draining")[0], first, "all that is kept, after the id %.20s" % known)
        bad = WsNode(b, A, SECRET2, authenticate=False)
        bad.reply()
        bad.closes(1008, "auth failed")
        equal(again.wait("auth")[1]["text"], "refused node %d from %s:%d" % ((A,) + bad.at), "a stranger's failure")


@scenario(io=ONE)
def many_event_streams(case):
    """Two hundred, of which half do not read: the others hear everything at once, and UDP is served."""
    with serving(case, "--admin", "127.0.0.1:0") as b:
        at, readers, stuck = plain_at(b), [], []
        for number in range(200):
            idle = number % 2
            s = Events(b, source="127.0.2.%d" % (1 + number // 20), receive_buffer=4096 if idle else None)
            equal(s.status, 200, "status of stream %d" % number)
            (stuck if idle else readers).append(s)
        equal(told(at, "status")["http"]["streams"], 200, "the streams")
        node = Node(b).register(C)
        worst = 0.0
        for _ in range(3):
            began = time.monotonic()
            good(at, "drain"), good(at, "undrain")
            for s in readers:
                s.wait("drain", "serving again")
            worst = max(worst, time.monotonic() - began)
            node.send(relay(C, C, b"x"))
            node.expect(delivered(C, b"x"), "relay beside them")
        true(worst < (6 if SLOW else 2.5), "an event reached all in %.2f s" % worst)
        for s in stuck:
            s.close()
        eventually("their places are free", lambda: told(at, "status")["http"]["streams"] == len(readers), seconds=4)
        true(all(s.next() for s in readers), "the others live")
        kib = b.resident_kib()
        true(kib < (400 if SLOW else 60) * 1024, "memory of all that: %d KiB" % kib)


# --- metrics ---

SERIES = (
    ("beacon_tls_handshakes_total", "result", ("ok", "failed", "limited")),
    ("beacon_wss_upgrades_total", "result", ("ok", "failed", "probe")),
    ("beacon_wss_authentications_total", "result", ("ok", "failed", "timeout", "unavailable")),
    ("beacon_wss_frames_total", "direction", ("in", "out")),
    ("beacon_wss_frame_bytes_total", "direction", ("in", "out")),
    ("beacon_wss_closed_total", "reason", ("replaced", "idle", "protocol", "key_withdrawn", "stuck")),
    ("beacon_tls_certificate_not_after_timestamp_seconds", "name", ("localhost",)),
    ("beacon_wss_sessions", None, ()), ("beacon_wss_connections_waiting", None, ()), ("beacon_wss_queued_bytes", None, ()),
    ("beacon_wss_no_session_total", None, ()), ("beacon_wss_frames_dropped_total", None, ()),
    ("beacon_proxy_bad_total", None, ()), ("beacon_keys_file_keys", None, ()), ("beacon_keys_cached", None, ()),
    ("beacon_keys_pinned", None, ()), ("beacon_keys_lookups_total", None, ()),
    ("beacon_keys_lookup_failures_total", None, ()), ("beacon_keys_cache_hits_total", None, ()),
)


@scenario(io=ONE, shards=(1, 4), needs=("promtool",))
def metrics_of_the_edge(case):
    """Each series is there before anything happened, and moves when it does."""
    certificate = Certificate(days=20)
    with serving(case, "--admin", "127.0.0.1:0", "--wss-first-use", certificate=certificate, plain=True) as b:
        start = {(n, tuple(sorted(l.items()))): v for n, l, v in b.samples()}
        for name, label, values in SERIES:
            for labels in [((label, v),) for v in values] or [()]:
                true((name, labels) in start, "series %s %s exists from the start" % (name, labels))
        done = subprocess.run(("promtool", "check", "metrics"), input=b.metrics_text(), capture_output=True, text=True)
        equal((done.returncode, done.stdout + done.stderr), (0, ""), "promtool check metrics")
        names = [(n, tuple(sorted(l.items()))) for n, l, _ in b.samples()]
        equal(len(names), len(set(names)), "each series once")
        ends = start[("beacon_tls_certificate_not_after_timestamp_seconds", (("name", "localhost"),))]
        within(ends - time.time(), 20 * 86400 - 120, 20 * 86400 + 120, "seconds until the certificate ends")
        equal(start[("beacon_keys_file_keys", ())], 3, "keys of the file")

        def moved(name, **labels):
            return b.metric(name, **labels) - int(start[(name, tuple(sorted(labels.items())))])
        udp, ws, new = Node(b).register(C), WsNode(b, A, SECRET1), WsNode(b, 31, SECRET2)
        ws.fence(), new.fence()
        for _ in range(5):
            ws.say(BINARY, relay(A, C, bytes(100)))
            udp.expect(delivered(A, bytes(100)), "relay to UDP")
            udp.send(relay(C, A, bytes(50)))
            ws.expect(delivered(C, bytes(50)), "relay to the session")
        bad = WsNode(b, A, SECRET2, authenticate=False)
        bad.reply()
        bad.closes(1008)
        Stream(b, "wss", tls=False, first=b"GET / HTTP/1.1\r\n\r\n").ended()
        WsNode(b, A, SECRET1).fence()
        ws.closes(1000, "replaced")
        equal((moved("beacon_tls_handshakes_total", result="ok") >= 4, moved("beacon_tls_handshakes_total", result="failed")),
              (True, 1), "TLS handshakes, good and failed")
        equal(moved("beacon_wss_upgrades_total", result="ok"), 4, "upgrades")
        equal(moved("beacon_wss_authentications_total", result="ok"), 3, "authentications")
        equal(moved("beacon_wss_authentications_total", result="failed"), 1, "failed ones")
        equal((b.metric("beacon_wss_sessions"), moved("beacon_keys_pinned")), (2, 1), "sessions and pinned keys")
        equal((moved("beacon_wss_frames_total", direction="in"), moved("beacon_wss_frames_total", direction="out")),
              (8, 8), "frames in and out")
        equal(moved("beacon_wss_frame_bytes_total", direction="in"), 5 * 109 + 3 * 5, "bytes of frames")
        equal(moved("beacon_wss_closed_total", reason="replaced"), 1, "replaced sessions")
        after = {(n, tuple(sorted(l.items()))) for n, l, _ in b.samples()}
        equal(after - start.keys(), set(), "no series has come up later")
    certificate.close()
