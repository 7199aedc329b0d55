"""/healthz, /livez, /readyz and /metrics as load balancers and Prometheus meet them."""

import socket
import subprocess

from . import lab
from .frame import SLOW, Failure, equal, scenario, true
from .wire import A, B, Node, punch, relay, stun


def traffic(b):
    a, node = Node(b).register(A), Node(b).register(B)
    for message in (relay(A, B, b"PILPx"), punch(A, B), relay(A, 99), b"\xff", stun()):
        a.send(message)
    a.drain(0.1)


@scenario(shards=(1, 4))
def endpoints(case):
    with case.beacon() as b:
        for path in ("/healthz", "/livez", "/readyz"):
            status, body = b.get(path)
            equal(status, 200, "status of %s (%r)" % (path, body))
            equal(b.get(path, method="HEAD"), (200, ""), "HEAD %s" % path)
            equal(b.get(path, method="POST")[0], 405, "POST %s" % path)
            equal(b.get(path, "metrics")[0], 404, "%s on the metrics listener" % path)
        for path in ("/", "/nosuch", "/healthz/", "/metric", "/..", "/%00"):
            equal(b.get(path)[0], 404, "status of %s" % path)
        equal(b.get("/healthz?probe=1")[0], 200, "a query is ignored")


@scenario(shards=(1, 4), needs=("promtool",))
def metrics_are_clean(case):
    with case.beacon() as b:
        traffic(b)
        text = b.metrics_text()
        done = subprocess.run(("promtool", "check", "metrics"), input=text, capture_output=True, text=True)
        equal((done.returncode, done.stdout + done.stderr), (0, ""), "promtool check metrics")
        names = [(name, tuple(sorted(labels.items()))) for name, labels, _ in b.samples()]
        equal(len(names), len(set(names)), "each series once")
        true(len(names) <= 400 * case.shards, "%d series are not too many" % len(names))


@scenario()
def counters_only_grow(case):
    with case.beacon() as b:
        traffic(b)
        before = {(n, tuple(sorted(l.items()))): v for n, l, v in b.samples() if n.endswith("_total")}
        traffic(b)
        after = {(n, tuple(sorted(l.items()))): v for n, l, v in b.samples()}
        true(before and before.keys() <= after.keys(), "series of counters do not vanish")
        shrunk = [key for key, value in before.items() if after[key] < value]
        equal(shrunk, [], "counters that shrank")


@scenario(io=("mmsg",), needs=("root", "ip"))
def metrics_stay_private(case):
    """A health listener that others reach shows no metrics, unless --dev; one on loopback may."""
    space = case.lab.space("m")
    with case.beacon(health="0.0.0.0:0", metrics=None, space=space) as b:
        host = ("127.0.0.1", b.at["health"][0][1])
        b.at["health"] = [host]
        equal(b.get("/healthz")[0], 200, "/healthz")
        equal(b.get("/metrics")[0], 404, "/metrics on a public health listener")
        b.checks = False  # its counters cannot be read: that is the point
    with case.beacon("--dev", health="0.0.0.0:0", metrics=None, space=space) as b:
        b.at["health"] = b.at["metrics"] = [("127.0.0.1", b.at["health"][0][1])]
        equal(b.get("/metrics")[0], 200, "/metrics on a public health listener with --dev")


def talk(b, request, pieces=1):
    """Raw bytes to the health listener; all that comes back until it closes or falls quiet."""
    with lab.inside(b.space), socket.create_connection(b.at["health"][0], timeout=2) as tcp:
        step = max(1, len(request) // pieces)
        for at in range(0, len(request), step):
            tcp.sendall(request[at:at + step])
        got = b""
        try:
            while True:
                more = tcp.recv(65536)
                if not more:
                    return got, True
                got += more
                tcp.settimeout(0.6 if SLOW else 0.2)
        except TimeoutError:
            return got, False
        except ConnectionResetError:
            return got, True


@scenario(io=("mmsg",))
def odd_http(case):
    with case.beacon() as b:
        good = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        true(talk(b, good)[0].startswith(b"HTTP/1.1 200 "), "a plain request")
        true(talk(b, good, pieces=len(good))[0].startswith(b"HTTP/1.1 200 "), "byte by byte")
        equal(talk(b, good * 3)[0].count(b"HTTP/1.1 200 "), 3, "answers to three pipelined requests")
        old, closed = talk(b, b"GET /healthz HTTP/1.0\r\n\r\n")
        true(b" 200 " in old and closed, "HTTP/1.0 is answered and closed")
        for what, request in {
                "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
                "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
                "head of 20 KiB": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
                "space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
                "two lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
                "chunked": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        }.items():
            answer, closed = talk(b, request)
            true(closed, "%s: the connection is closed" % what)
            true(not answer or answer[9:10] in (b"4", b"5"), "%s: answered with %r" % (what, answer[:30]))
        true(talk(b, good)[0].startswith(b"HTTP/1.1 200 "), "a plain request after all that")


@scenario(io=("mmsg",))
def many_idle_connections(case):
    """One address cannot take all connections: the health check of another still gets through."""
    with case.beacon() as b:
        held = []
        try:
            for _ in range(150):
                tcp = socket.socket()
                tcp.bind(("127.0.0.7", 0))
                tcp.settimeout(2)
                tcp.connect(b.at["health"][0])
                held.append(tcp)
            equal(b.get("/healthz")[0], 200, "/healthz beside 150 idle connections")
            closed = 0
            for tcp in held:
                tcp.settimeout(0.001)
                try:
                    closed += tcp.recv(1) == b""
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    closed += 1
            true(150 > closed >= 150 - 64, "connections past the cap are closed: %d of 150" % closed)
        except OSError as error:
            raise Failure("connections are refused: %s" % error) from None
        finally:
            for tcp in held:
                tcp.close()
