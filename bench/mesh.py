"""Several beacons that gossip, under load. See README.md.

Each part starts its own beacons, ends them, and returns its figures; whatever must never happen is
added to the problems.
"""
import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time

from edge import metric, rss_bytes
from processes import B, UNLIMITED, Failure, Load, child_setup, cpu_ns, udp_port

PARTS = ("pure", "relay", "rest", "forged", "takeover", "drain")
NODES, FEW_NODES = 100_000, 10_000
LENGTHS = (64, 1200)
FORGED_RATE, FORGED_SECONDS = 50_000, 3
STREAM_RATE = 10_000
SUCCESSIONS = 10
UDP_SEGMENT = 103
SETTLE_SECONDS = 20
KEY = bytes([2]) * 32


def pin(pid, cpu):
    """A running process, all threads of it."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {cpu})


def eventually(what, holds, seconds=SETTLE_SECONDS):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Forger:
    """Sends frames with the id of a key that is there and a tag that is wrong, as many a second as asked."""

    def __init__(self, port, receiver, length):
        self.length, self.sent = length, 0
        head = struct.pack(">BBBBIIQQ", 0x20, 1, 1, 2, 99, receiver, 5, 1)
        count = min(60, 65000 // length)
        self.burst = (head + bytes(length - len(head))) * count
        self.count = count
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_UDP, UDP_SEGMENT, length)
        self.socket.connect(("127.0.0.1", port))

    def run(self, rate, seconds):
        begin, self.sent = time.monotonic(), 0
        while (passed := time.monotonic() - begin) < seconds:
            while self.sent < passed * rate:
                self.socket.send(self.burst)
                self.sent += self.count
            time.sleep(0.0005)

    def close(self):
        self.socket.close()


class Mesh:
    def __init__(self, bench):
        self.bench, self.quick = bench, bench.options.quick
        self.stack = None
        self.keys = os.path.join(bench.directory, "gossip.keys")
        with open(self.keys, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write(f"1 use {base64.b64encode(KEY).decode()}\n")

    def run(self, parts):
        results = {}
        for part in PARTS:
            if part not in parts:
                continue
            self.bench.say(f"mesh {part}")
            with contextlib.ExitStack() as self.stack:
                try:
                    results[part] = getattr(self, part)()
                except (Failure, OSError) as failure:
                    self.problem(part, failure)
        return results

    def problem(self, part, what):
        self.bench.problems.append(f"mesh {part}: {what}")

    # --- processes ---

    def beacon(self, number, *flags, peers=(), cpu=None, port=None):
        known = ("--peers", ",".join(f"127.0.0.1:{p.port}" for p in peers)) if peers else ()
        server = self.bench.beacon(f"mesh-{number}", "--beacon-id", str(number), "--gossip-keys", self.keys,
                                   "--peer-rate", "10000000", *known, *UNLIMITED, *flags, cpu=cpu, port=port)
        self.stack.callback(server.close)
        return server

    def met(self, servers, others):
        for s in servers:
            eventually(f"{s.name} knows {others} others",
                       lambda s=s: metric(s, "beacon_mesh_peers", 'state="alive"') == others)

    def pair(self, *flags):
        """The first has the servers' CPU to itself; the second shares the generator's."""
        one = self.beacon(1, "--shards", "1", *flags, cpu=self.bench.server_cpu)
        two = self.beacon(2, "--shards", "1", *flags, peers=[one], cpu=self.bench.load_cpu)
        self.met((one, two), 1)
        return one, two

    def load(self, server, nodes):
        """A generator whose nodes are registered there."""
        load = Load("beacon", server, udp_port(), nodes, self.bench.load_cpu)
        self.stack.callback(load.close)
        self.bench.check(f"{server.name}: registration", load.ask("register"))
        eventually("all nodes are stored", lambda: self.bench.nodes_of(server) == nodes)
        return load

    def aim(self, load, server):
        load.ask(f"aim {server.pid} {server.port}")

    # --- parts ---

    def pure(self):
        out = subprocess.run([f"{B}/bench/bench_mesh"], stdout=subprocess.PIPE, check=False,
                             preexec_fn=child_setup(self.bench.server_cpu))
        if out.returncode != 0:
            raise Failure(f"bench_mesh ended with {out.returncode}")
        return json.loads(out.stdout)

    def relay_round(self, one, two, load, taken, seconds, io):
        """To nodes of the second through the first, and, as a comparison, straight to the second."""
        for length in LENGTHS:
            for way, server in (("to another beacon's node", one), ("to a node here", two)):
                pin(two.pid, self.bench.load_cpu if server is one else self.bench.server_cpu)
                self.aim(load, server)
                second = cpu_ns(two.pid)
                t = load.ask(f"relay {length} random {seconds}")
                self.bench.check(f"mesh relay {length} B {way} {io}", t)
                if server is one:
                    t["second_ns"] = (cpu_ns(two.pid) - second) / max(t["right"], 1)
                taken.setdefault((f"{length} B {way}", io), []).append(t)

    def relay(self):
        taken, pairs = {}, {}
        for io in ("uring", "mmsg"):
            one, two = self.pair("--io", io)
            load = self.load(two, NODES)
            eventually("the first beacon knows all", lambda: metric(one, "beacon_mesh_routes") == NODES)
            pairs[io] = (one, two, load)
        for number in range(self.bench.options.rounds + 1):  # the first only warms up
            self.bench.say(f"mesh relay, round {number}/{self.bench.options.rounds}")
            for io, servers in pairs.items():
                self.relay_round(*servers, taken if number else {}, self.bench.options.seconds if number else 0.1, io)
        table = {}
        for (cell, io), tallies in taken.items():
            table.setdefault(cell, {})[io] = {
                **spread([t["ns"] for t in tallies]),
                "busy": statistics.median(t["cpu_ns"] / 1e9 / t["seconds"] for t in tallies)}
            if "second_ns" in tallies[0]:
                table.setdefault(cell.replace("to another beacon's node", "from another beacon"), {})[io] = {
                    **spread([t["second_ns"] for t in tallies]), "busy": None}
        return table

    def rest(self):
        """At default sizes: memory, and what three beacons with nothing to do cost."""
        table, servers = {}, []
        for number in (1, 2, 3):
            servers.append(self.beacon(number, peers=servers[:1]))
        self.met(servers, 2)
        time.sleep(3)
        table["default sizes with a mesh, start MB"] = rss_bytes(servers[0].pid) / 2**20
        shares = [self.bench.idle(s.pid) for s in servers]
        table["idle CPU share of one of three, most"] = max(shares)
        load = self.load(servers[1], NODES)
        eventually("the first beacon knows all", lambda: metric(servers[0], "beacon_mesh_routes") == NODES)
        time.sleep(2)
        table["the same, 100k nodes of another beacon MB"] = rss_bytes(servers[0].pid) / 2**20
        load.close()
        table["idle CPU share of it, 100k nodes of another"] = self.bench.idle(servers[0].pid)
        return table

    def forged(self):
        one, _ = self.pair()
        load = self.load(one, FEW_NODES)
        table = {}
        for length in (96, 1232):
            forger = Forger(one.port, 1, length)
            self.stack.callback(forger.close)
            before = metric(one, "beacon_verdicts_total", 'reason="forged"')
            spent, begin = cpu_ns(one.pid), time.monotonic()
            forger.run(FORGED_RATE, FORGED_SECONDS)
            seconds = time.monotonic() - begin
            spent = cpu_ns(one.pid) - spent
            time.sleep(1.2)  # counters are written once a second at the latest
            refused = metric(one, "beacon_verdicts_total", 'reason="forged"') - before
            thread = threading.Thread(target=forger.run, args=(FORGED_RATE, 2.5))
            sent = forger.sent
            thread.start()
            beside = load.ask(f"stream 64 {STREAM_RATE} 2")
            thread.join()
            self.bench.check(f"mesh relays beside forged frames, {length} B", beside)
            table[f"{length} B"] = {"sent_per_s": sent / seconds, "refused_as_forged": refused / max(sent, 1),
                                    "cpu_share": spent / 1e9 / seconds, "ns_a_frame": spent / max(sent, 1),
                                    "relays_lost_beside": beside["lost"],
                                    "longest_gap_us_beside": beside["gap_us"]}
            if metric(one, "beacon_mesh_peers", 'state="alive"') != 1:
                self.problem("forged", "the other beacon does not count as alive any more")
        return table

    def takeover_of(self, load, before, flags):
        """The successor is started in the midst of a stream: by this thread, for a process ends with
        the thread that has started it. Returns it and what became of the stream."""
        tallies = []
        thread = threading.Thread(target=lambda: tallies.append(load.ask(f"stream 64 {STREAM_RATE} 2.5")))
        thread.start()
        try:
            time.sleep(0.5)
            began = time.monotonic()
            after = self.beacon(1, *flags, port=before.port)
            code = before.process.wait(timeout=20)
            seconds = time.monotonic() - began
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{before.name}: does not end") from late
        finally:
            thread.join()
        if code != 0 or not tallies:
            raise Failure(f"the predecessor ended with {code}")
        return after, {**tallies[0], "took": seconds}

    def streams(self, part, name, tallies):
        lost = sum(t["lost"] for t in tallies)
        for t in tallies:  # what changes shards on the way may be overtaken: a figure, no error
            self.bench.check(f"mesh {part} {name}", {**t, "reordered": 0})
        return {"times": len(tallies), "sent": sum(t["sent"] for t in tallies), "lost": lost,
                "reordered": sum(t["reordered"] for t in tallies),
                "longest_gap_us": spread([t["gap_us"] for t in tallies]),
                "generator_gap_us": spread([t["send_gap_us"] for t in tallies])}

    def takeover(self):
        """To nodes of the beacon that is replaced, and to those of another through it."""
        table = {}
        for name in ("nodes here", "nodes of another beacon"):
            other = self.beacon(2)
            flags = ("--takeover", "--takeover-socket", f"{self.bench.directory}/takeover.socket",
                     "--peers", f"127.0.0.1:{other.port}")
            one = self.beacon(1, *flags)
            self.met((one, other), 1)
            load = self.load(one if name == "nodes here" else other, NODES)
            if name != "nodes here":
                eventually("it knows all", lambda: metric(one, "beacon_mesh_routes") == NODES)
                self.aim(load, one)
            quiet, tallies = load.ask(f"stream 64 {STREAM_RATE} 2.5"), []
            for _ in range(2 if self.quick else SUCCESSIONS):
                one, t = self.takeover_of(load, one, flags)
                tallies.append(t)
                self.met((one, other), 1)
            table[name] = {**self.streams("takeover", name, tallies), "longest_gap_us_without": quiet["gap_us"],
                           "seconds_from_start_to_end": spread([t["took"] for t in tallies])}
            one.close()
            other.close()
            load.close()
        return table

    def drain(self):
        """SIGTERM in the midst of a stream that ends before the drain does."""
        tallies, seconds = [], []
        other = self.beacon(2)
        for _ in range(2 if self.quick else SUCCESSIONS):
            one = self.beacon(1, "--drain-time", "2s", peers=[other])
            load = self.load(one, FEW_NODES)
            timer = threading.Timer(0.5, os.kill, (one.pid, signal.SIGTERM))
            began = time.monotonic() + 0.5
            timer.start()
            tallies.append(load.ask(f"stream 64 {STREAM_RATE} 1.5"))
            if one.process.wait(timeout=20) != 0:
                self.problem("drain", f"ended with {one.process.returncode}")
            seconds.append(time.monotonic() - began)
            load.close()
        return {**self.streams("drain", "", tallies), "seconds_until_it_ended": spread(seconds)}


# --- figures to reach, and tables ---

def goals_of(mesh):
    """Rows for report.goal: name, value, bound, and whether the value must be at least that."""
    relay, rest = mesh.get("relay", {}), mesh.get("rest", {})
    if "pure" in mesh:
        yield "bytes of a route, table and store", mesh["pure"]["bytes"]["a route in all, table and store"], 128
    for io in ("uring", "mmsg"):
        for length in LENGTHS:
            if relay:
                yield (f"{io}: {length} B to another beacon's node / to one here",
                       relay[f"{length} B to another beacon's node"][io]["median"] /
                       relay[f"{length} B to a node here"][io]["median"], 1.15)
    if rest:
        yield "idle CPU share of one of three", rest["idle CPU share of one of three, most"], 0.002
    for name, row in mesh.get("forged", {}).items():
        yield f"CPU share, {FORGED_RATE} forged frames/s of {name}", row["cpu_share"], 0.25
        yield f"relays lost beside forged frames of {name}", row["relays_lost_beside"], 0
    for name, row in mesh.get("takeover", {}).items():
        yield f"relays lost, {row['times']} takeovers, {name}", row["lost"], 0
        yield f"longest gap us of a takeover, median, {name}", row["longest_gap_us"]["median"], 50_000
    if "drain" in mesh:
        yield f"relays lost, {mesh['drain']['times']} drains", mesh["drain"]["lost"], 0


def shown(value):
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['min']:.4g}-{value['max']:.4g})"
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def flat_rows(figures):
    return [[name, shown(v)] for name, v in figures.items()]


def columns(table):
    names = list(dict.fromkeys(n for row in table.values() for n in row))
    return [["", *table]] + [[n, *(shown(row.get(n, "-")) for row in table.values())] for n in names]


def tables_of(mesh):
    if "pure" in mesh:
        yield "The mesh's pure code, ns per call", flat_rows(mesh["pure"]["ns"])
        yield "Bytes", flat_rows(mesh["pure"]["bytes"])
    if "relay" in mesh:
        rows = [["", "uring", "mmsg"]]
        for cell, row in mesh["relay"].items():
            rows.append([cell] + [f"{f['median']:.0f} ({f['min']:.0f}-{f['max']:.0f})" +
                                  (f" {f['busy']:.0%}" if f["busy"] else "") for f in row.values()])
        yield "CPU-ns of one beacon per relayed packet: median (least-most), share of its CPU in use", rows
    if "rest" in mesh:
        yield "Memory, and three beacons idling", flat_rows(mesh["rest"])
    if "forged" in mesh:
        yield f"{FORGED_RATE} forged frames a second", columns(mesh["forged"])
    if "takeover" in mesh:
        yield f"Takeovers in a stream of {STREAM_RATE} relays/s, {NODES} nodes", columns(mesh["takeover"])
    if "drain" in mesh:
        yield f"Drains in a stream of {STREAM_RATE} relays/s", flat_rows(mesh["drain"])
