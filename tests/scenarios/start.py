"""Starting, refusing to start, and what the command line says."""

import errno
import os
import socket
import subprocess
import tempfile

from . import lab
from .beacon import run
from .frame import BUILD, Failure, equal, scenario, true
from .wire import A, B, Node, delivered, relay, stun

USAGE, UNAVAILABLE, NO_PERMISSION, CONFIG = 2, 69, 77, 78


def refuses(code, words, *flags, text=None, suffix=".conf", env=None, preexec=None):
    """The beacon must end with that code and say all these words on stderr, once, without a crash."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon" + suffix)
        if text is not None:
            with open(path, "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
            flags += ("--config", path)
        got, out, err = run(BUILD, "--addr", "127.0.0.1:0", "--max-nodes", "1024", *flags, env=env, preexec=preexec)
    what = " ".join(flags) or str(env)
    equal((got, out), (code, ""), "exit code and stdout with %s; stderr %r" % (what, err))
    for word in words:
        true(word in err, "message with %s says %r: %r" % (what, word, err))
    true(len(err.splitlines()) <= 4, "message with %s is short: %r" % (what, err))


@scenario(io=("mmsg",))
def bad_flags(case):
    for flags, words in (
            (("--adr", ":1"), ("adr", "addr")),
            (("--shards", "-1"), ("shards",)),
            (("--health",), ("health",)),
            (("surplus",), ("surplus",))):
        refuses(USAGE, words, *flags)
    for flags, words in (
            (("--relay-rate", "fast"), ("relay-rate", "fast")),
            (("--relay-rate=",), ("relay-rate",)),
            (("--shards", "65"), ("shards", "65")),
            (("--shards=-1",), ("shards", "-1")),
            (("--node-ttl", "9s"), ("node-ttl", "9s")),
            (("--io", "epoll"), ("io", "epoll")),
            (("--addr", "nohost"), ("addr", "nohost")),
            (("--addr", "127.0.0.1:65536"), ("addr", "65536")),
            (("--require-punch-token=maybe",), ("require-punch-token", "maybe"))):
        refuses(CONFIG, words, *flags)


@scenario(io=("mmsg",))
def bad_config_files(case):
    for text, words in (
            ("\n\nrelay-rate = fast\n", ("beacon.conf:3", "relay-rate", "fast")),
            ("relay-rat = 5\n", ("beacon.conf:1", "relay-rat", "relay-rate")),
            ("# fine\nnode-ttl = 9s\n", ("beacon.conf:2", "node-ttl", "9s")),
            ("node-ttl 60s\n", ("beacon.conf:1",)),
            ("[nosuch]\n", ("beacon.conf:1", "nosuch")),
            ("[server]\nio = epoll\n", ("beacon.conf:2", "epoll")),
            ("io = uring\nio = mmsg\n", ("beacon.conf:2", "io")),
            (b"addr = \xff\n", ("beacon.conf:1",)),
            (b"addr = :1\0\n", ("beacon.conf:1",))):
        refuses(CONFIG, words, text=text)
    for text, words in (
            ('{"relay_rate": "fast"}', ("beacon.json", "relay", "fast")),
            ('{"nosuch": 1}', ("beacon.json", "nosuch")),
            ('{"addr": ":1", "addr": ":2"}', ("beacon.json", "addr")),
            ('{"addr": ', ("beacon.json",)),
            ("[]", ("beacon.json",))):
        refuses(CONFIG, words, text=text, suffix=".json")
    refuses(CONFIG, ("/nonexistent/beacon.conf",), "--config", "/nonexistent/beacon.conf")


@scenario(io=("mmsg",))
def bad_environment(case):
    refuses(CONFIG, ("BEACON_RELAY_RATE", "fast"), env={"BEACON_RELAY_RATE": "fast"})


@scenario(io=("mmsg",))
def flags_beat_environment_beats_file(case):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon.conf")
        with open(path, "w") as f:
            f.write("shards = 3\nnode-ttl = 77s\nrelay-rate = 7/7\n")
        code, out, err = run(BUILD, "--config", path, "--shards", "1", "--dump-config",
                             env={"BEACON_NODE_TTL": "88s", "BEACON_SHARDS": "2"})
        equal((code, err), (0, ""), "--dump-config")
        values = {}
        for line in out.splitlines():
            if "=" in line and not line.startswith("#"):
                name, value = line.split("#")[0].split("=", 1)
                values[name.strip()] = value.strip()
        for name, want in (("shards", "1"), ("node-ttl", "88"), ("relay-rate", "7/7")):
            true(values.get(name, "").startswith(want), "%s in the dump: %r" % (name, values.get(name)))
        with open(path, "w") as f:
            f.write(out)
        code, again, err = run(BUILD, "--config", path, "--check-config")
        equal((code, err), (0, ""), "--check-config of a dumped configuration (%s)" % again)


@scenario(io=("mmsg",))
def commands(case):
    code, out, err = run(BUILD, "--version")
    true(code == 0 and out.startswith("beacon ") and not err, "--version: %r" % out)
    code, out, err = run(BUILD, "--help")
    true(code == 0 and not err, "--help ends with 0")
    for option in ("--addr", "--io", "--shards", "--relay-rate", "--takeover-silence", "--config"):
        true(option in out, "--help names %s" % option)
    code, out, _ = run(BUILD, "--dump-config", env={"BEACON_REGISTRY_ADMIN_TOKEN": "hunter2"})
    true(code == 0 and "registry-admin-token" in out and "hunter2" not in out, "the dump masks secrets")


@scenario(io=("mmsg", "uring"))
def ports_in_use(case):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, socket.create_server(("127.0.0.1", 0)) as tcp:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        refuses(UNAVAILABLE, (port, os.strerror(errno.EADDRINUSE)), "--io", case.io, "--addr", "127.0.0.1:" + port)
        port = str(tcp.getsockname()[1])
        for listener in ("health", "metrics"):
            refuses(UNAVAILABLE, (listener, port, os.strerror(errno.EADDRINUSE)), "--" + listener, "127.0.0.1:" + port)
    refuses(UNAVAILABLE, ("203.0.113.9", os.strerror(errno.EADDRNOTAVAIL)), "--addr", "203.0.113.9:0")


@scenario(io=("mmsg", "uring"))
def two_beacons_do_not_share_a_port(case):
    """SO_REUSEPORT is for the shards: a second beacon must not steal half of the first one's traffic."""
    with case.beacon() as b:
        refuses(UNAVAILABLE, (str(b.udp[1]),), "--io", case.io, "--addr", "127.0.0.1:%d" % b.udp[1])
        for number in range(1, 30):
            Node(b).register(number)


@scenario(io=("auto",))
def io_uring_refused(case):
    """A container that refuses io_uring: auto falls back and says so; uring refuses to start."""
    with case.beacon(preexec=lab.no_io_uring()) as b:
        equal([line["io"] for line in b.lines if line.get("msg") == "listening" and line["component"] == "udp"][:1],
              ["mmsg"], "the port that auto chose")
        a, node = Node(b).register(A), Node(b).register(B)
        a.send(relay(A, B, b"PILPx"))
        node.expect(delivered(A, b"PILPx"), "relay after the fall-back")
    refuses(NO_PERMISSION, ("uring", os.strerror(errno.EPERM)), "--io", "uring", preexec=lab.no_io_uring())


@scenario(io=("auto",))
def auto_takes_io_uring(case):
    with case.beacon() as b:
        listening = b.wait_log("listening", component="udp")
        equal(listening["io"], "uring", "the port that auto chose")


@scenario()
def host_without_ipv6(case):
    """A kernel built without IPv6: the default address is then IPv4 alone."""
    with case.beacon(addr=":0", preexec=lab.no_ipv6()) as b:
        a, node = (Node(b, "127.0.0.1", to=b.udp_at("127.0.0.1")).register(n) for n in (A, B))
        a.send(relay(A, B, b"PILPx"))
        node.expect(delivered(A, b"PILPx"), "relay")
        equal(a.ask(stun())[:2], b"\x01\x01", "STUN")


@scenario(needs=("root", "ip"))
def ipv6_switched_off(case):
    """IPv6 in the kernel but disabled by sysctl, as many container hosts have it."""
    space = case.lab.space("no6")
    case.lab.sysctl(space, "ipv6/conf/all/disable_ipv6", "1")
    case.lab.sysctl(space, "ipv6/conf/lo/disable_ipv6", "1")
    with case.beacon(addr=":0", space=space) as b:
        Node(b, "127.0.0.1", to=b.udp_at("127.0.0.1"), space=space).register(A)
        equal(b.get("/readyz")[0], 200, "/readyz")


@scenario(shards=(4,))
def few_descriptors(case):
    """Too few descriptors: a clear refusal at start, not a beacon that fails later."""
    try:
        code, _, err = run(BUILD, "--io", case.io, "--shards", "4", "--addr", "127.0.0.1:0", "--max-nodes", "1024",
                           "--health", "127.0.0.1:0", preexec=lab.few_files(12))
    except subprocess.TimeoutExpired:
        raise Failure("runs with 12 descriptors") from None
    true(code in (1, UNAVAILABLE, NO_PERMISSION), "exit code %d; stderr %r" % (code, err))
    true("descriptor" in err.lower() or os.strerror(errno.EMFILE).lower() in err.lower(), "it says why: %r" % err)
