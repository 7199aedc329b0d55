"""What an operator watches: nodes, top talkers, the event stream, the metrics of the TCP edge."""

import contextlib
import json
import signal
import subprocess
import time

from .admin import ONE, Events, Keep, ctl, fails, good, plain_at, told
from .frame import SLOW, equal, eventually, scenario, true, within
from .mesh import QUICKLY, mesh, node_at, reaches
from .websock import BINARY, Certificate, Stream, WsNode, keys_file
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
    ("beacon_mesh_peers", "state", ("alive", "suspect", "dead", "left", "pilot", "silent")),
    ("beacon_mesh_frames_total", "direction", ("in", "out")), ("beacon_mesh_deltas_total", "kind", ("sent", "again")),
    ("beacon_mesh_enabled", None, ()), ("beacon_mesh_routes", None, ()), ("beacon_mesh_rows", None, ()),
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


# --- other beacons ---

DEGRADED = 3


def peer(at, number):
    """What a beacon says of that one; {} when it does not know it."""
    return next((p for p in told(at, "peers")["peers"] if p["beacon_id"] == number), {})


def of_mesh(b, name):
    return told(plain_at(b), "status")["mesh"][name]


@scenario(io=ONE, shards=(1, 3))
def beacons(case):
    """Who is there, who has which node, who may be gone to, and who has ended."""
    with mesh(case, 2, "--admin", "127.0.0.1:0", "--drain-time", "1s") as (one, two):
        at, there = plain_at(one), "%s:%d" % two.udp
        here, far = node_at(one, 1001), node_at(two, 2002)
        reaches(here, far, b"PILTfar")
        reaches(far, here, b"PILThere")
        eventually("both know all, and show it", lambda: peer(at, 2).get("rows") == peer(plain_at(two), 1).get("rows") == 1 and
                   of_mesh(one, "settled") and of_mesh(one, "rows")["own"] == 1, QUICKLY)

        listed = told(at, "peers")["peers"]
        equal([(p["beacon_id"], p["self"], p["state"]) for p in listed], [(1, True, "alive"), (2, False, "alive")], "peers")
        equal((listed[1]["addr"], listed[1]["rows"], listed[1]["draining"], listed[1]["error"]), (there, 1, False, None),
              "the other beacon")
        equal((peer(plain_at(two), 1)["rows"], listed[1]["version"]), (1, told(at, "status")["version"]), "nodes and version")
        true(0 < listed[1]["rtt_us"] < 1000000 and listed[1]["silent_ms"] < 5000, "it answers: %s" % listed[1])
        true(listed[1]["in"]["frames"] > 0 and listed[1]["out"]["bytes"] > 0, "frames of both ways: %s" % listed[1])
        lines = good(at, "peers").splitlines()
        equal((len(lines), lines[1].split()[2], lines[2].split()[:3]), (3, "self", ["2", there, "alive"]), "the table")
        equal(json.loads(good(at, "--json", "peers", "2"))["addr"], there, "one of them")
        fails(at, 1, "no beacon 9", "peers", "9")
        fails(at, 2, "no beacon id", "peers", "two")

        equal((told(at, "nodes", "1001")["beacon"], told(at, "nodes", "2002")["beacon"]),
              (None, {"beacon_id": 2, "addr": there, "usable": True, "transport": "udp"}), "who has the nodes")
        equal(good(at, "nodes", "2002"), "2002 is registered at beacon 2, %s, by udp, unverified\n" % there, "the same for people")
        pages = [json.loads(line) for line in good(at, "--json", "nodes").splitlines()]
        equal([n["node_id"] for p in pages for n in p["nodes"]], [1001], "the list has those of this beacon")

        said = told(at, "status")["mesh"]
        equal((said["mode"], said["beacon_id"], said["sealed"], said["routes"], said["rows"]["own"], said["successors"]),
              ("mesh", 1, True, 1, 1, [there]), "the mesh in the status")
        true("mesh       beacon 1 and others: 1 alive; 1 nodes of others; sealed, settled\n" in good(at, "status"),
             "and for people: %s" % good(at, "status"))
        equal((one.metric("beacon_mesh_enabled"), one.metric("beacon_mesh_peers", state="alive"), one.metric("beacon_mesh_routes"),
               one.metric("beacon_mesh_own_rows"), one.metric("beacon_mesh_duplicate_id")), (1, 1, 1, 1, 0), "and in the metrics")
        true(one.verdict("relay", "to_beacon", "forwarded") > 0 and one.verdict("relay", "from_beacon", "forwarded") > 0,
             "relays of both ways are counted")
        true(one.verdict("gossip", "", "taken") > 0, "and gossip is")

        good(plain_at(two), "drain")
        eventually("the drain is known", lambda: peer(at, 2)["draining"], QUICKLY)
        eventually("nobody goes there", lambda: of_mesh(one, "successors") == [], QUICKLY)
        true("draining" in good(at, "peers"), "the table says so")
        good(plain_at(two), "undrain")
        eventually("and is taken back", lambda: of_mesh(one, "successors") == [there], QUICKLY)
        two.check_balance()
        two.signal(signal.SIGTERM)
        two.wait_exit(0)
        eventually("it said goodbye", lambda: peer(at, 2)["state"] == "left", QUICKLY)
        code, out, err = ctl(at, "peers", "2")
        equal((code, "left" in out, err), (DEGRADED, True, ""), "exit code for a beacon that has left")
        eventually("its node is out of reach", lambda: not told(at, "nodes", "2002")["beacon"]["usable"], QUICKLY)
        true(good(at, "nodes", "2002").endswith("; that beacon is gone\n"), "and that is said")
        one.wait_log("beacon", beacon_id=2, state="left")


@scenario(io=ONE, shards=(1, 3))
def drained_to_another(case):
    """Sessions that must go are told where to; and who asks for the mesh is answered until the listener ends."""
    with contextlib.closing(Certificate()) as own:
        wss = ("--wss", "127.0.0.1:0", *own.flags(), "--keys", keys_file(own.folder.name, {A: SECRET1}))
        flags = ("--admin", "127.0.0.1:0", "--drain-time", "1s")
        with mesh(case, 2, *flags, own_flags={0: wss}) as (one, two):
            there = "%s:%d" % two.udp
            eventually("the other takes nodes", lambda: of_mesh(one, "successors") == [there], QUICKLY)
            first = WsNode(one, A, SECRET1)
            first.fence()
            good(plain_at(one), "drain")
            first.closes(1001, "beacon shutting down; try " + there, seconds=8)
            good(plain_at(one), "undrain")
            eventually("it is open again", lambda: one.get("/readyz")[0] == 200)
            good(plain_at(two), "drain")
            eventually("nobody takes nodes", lambda: of_mesh(one, "successors") == [], QUICKLY)
            last, watcher = WsNode(one, A, SECRET1), Keep(one)
            last.fence()
            one.signal(signal.SIGTERM)
            last.closes(1001, "beacon shutting down")
            try:
                while True:
                    watcher.get("/v1/peers"), watcher.get("/v1/status")
            except (OSError, EOFError):
                pass  # the listener has ended
            one.wait_exit(0)


@scenario(io=ONE)
def keys_of_the_mesh(case):
    """A new key on each host, its use, the end of the old one: nobody is lost on the way."""
    with mesh(case, 2, "--admin", "127.0.0.1:0") as both:
        path = both[0].flags[both[0].flags.index("--gossip-keys") + 1]
        key = ("--file", path, "gossip-key")
        first, second = (plain_at(b) for b in both)
        here, far = node_at(both[0], 1001), node_at(both[1], 2002)
        reaches(here, far, b"PILTold")
        before = told(first, *key, "list")["keys"]
        equal([(k["id"], k["state"]) for k in before], [(1, "use")], "the key of the start")
        for action in (("add",), ("use", "2"), ("remove", "1")):
            out = good(first, *key, *action)
            true(out.endswith("reloaded\n"), "%s has the beacon reload: %s" % (action[0], out))
            good(second, "reload")
            reaches(here, far, b"PILT" + action[0].encode())
            reaches(far, here, b"PILT" + action[0].encode())
        after = told(first, *key, "list")["keys"]
        equal([(k["id"], k["state"]) for k in after], [(2, "use")], "the key of the end")
        true(after[0]["fingerprint"] != before[0]["fingerprint"], "it is another one")
        with open(path) as f:
            secret = f.read().split()[2]
        true(secret not in good(first, *key, "list"), "a list shows no key")
        for words, code, text in ((("remove", "2"), 1, "key 2 is in use"), (("use", "1"), 1, "there is no key 1"),
                                  (("generate",), 1, "is there already"), (("use",), 2, "wants the id"),
                                  (("list", "1"), 2, "too much"), (("eat",), 2, "none of generate"), (("add", "256"), 2, "no id")):
            fails(first, code, text, *key, *words)
        fails(first, 2, "--file", "gossip-key", "list")
        good(first, *key, "--no-reload", "add")
        code, out, err = ctl("127.0.0.1:1", *key, "add")
        equal((code, "--no-reload" in err), (69, True), "a change without a beacon to tell: %s" % err)
        equal(len(told(first, *key, "list")["keys"]), 3, "is one all the same")
        eventually("nobody was lost", lambda: all(b.metric("beacon_mesh_peers", state="alive") == 1 for b in both), QUICKLY)
