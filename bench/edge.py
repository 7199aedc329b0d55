"""The TCP edge under load: sessions over WebSocket, strangers, event streams. See README.md.

Each part starts its own beacon, ends it, and returns its figures; whatever must never happen is added
to the problems.
"""
import contextlib
import json
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import time
import urllib.request

from processes import B, Failure, Load, child_setup, cpu_ns, free_port, udp_port

PARTS = ("idle", "relay", "stuck", "hello", "reload", "streams")
UNLIMITED = ("--relay-rate", "10000000", "--relay-ip-rate", "10000000")
IDLE_SESSIONS, IDLE_HANDSHAKES = 10_000, "4000/4000"
RELAY_SESSIONS, RELAY_RATE = 64, 1000
STUCK_SESSIONS, STUCK_EVERY, STUCK_RATE = 500, 10, 5000
HELLOS, UDP_BESIDE, HANDSHAKES_BESIDE = 5000, 2000, 50
FLOODS = (("none", 0), ("100 addresses", 100), ("20,000 addresses", 20_000))
RELOAD_HANDSHAKES, SWAP_SECONDS = 200, 0.5
STREAMS, STREAM_EVENTS = 1000, 40
STREAM_CASES = (("all read", 0, False), ("20 % stuck", 20, False),
                (f"20 % stuck, {STREAM_EVENTS} events/s", 20, True))
WAYS = (("udp", "udp"), ("udp", "wss"), ("wss", "udp"), ("wss", "wss"))
LOADS = (("1000/s", "single", RELAY_RATE), ("full, single", "single", 0), ("full, bulk", "bulk", 0))


class Generator:
    """A bench_wss: its answers are lines of JSON, each with a deadline."""

    def __init__(self, cpu, *args):
        self.name = f"bench_wss {args[0]}"
        argv = [f"{B}/bench/bench_wss", *map(str, args)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        preexec_fn=child_setup(cpu))
        self.text = b""

    def answer(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.text:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise Failure(f"{self.name}: no answer in {timeout:.0f} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise Failure(f"{self.name}: ended with {self.process.wait()}")
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command, timeout):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer(timeout)

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tcp_memory_bytes():
    """Of all sockets of this host, both ends."""
    with open("/proc/net/sockstat") as f:
        return int(re.search(r"^TCP:.* mem (\d+)", f.read(), re.M)[1]) * os.sysconf("SC_PAGE_SIZE")


def metric(server, name, labels=""):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    rows = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.M)
    return sum(float(value) for shown, value in rows if labels in shown)


def medians(tallies, names):
    return {n: statistics.median(t[n] for t in tallies) for n in names if all(n in t for t in tallies)}


class Edge:
    def __init__(self, bench):
        self.bench, self.quick = bench, bench.options.quick
        self.rounds = min(3, bench.options.rounds)
        self.stack = None

    def run(self, parts):
        results = {}
        for part in PARTS:
            if part not in parts:
                continue
            self.bench.say(f"edge {part}")
            with contextlib.ExitStack() as self.stack:
                try:
                    results[part] = getattr(self, part)()
                except (Failure, OSError) as failure:
                    self.problem(part, failure)
        return results

    def problem(self, part, what):
        self.bench.problems.append(f"edge {part}: {what}")

    # --- processes ---

    def pair(self, name):
        """A certificate and its key, in a folder of their own."""
        folder = os.path.join(self.bench.directory, f"tls-{name}")
        if not os.path.isdir(folder):
            os.mkdir(folder)
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                            "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
                           check=True, stderr=subprocess.DEVNULL, timeout=30)
            os.chmod(f"{folder}/key.pem", 0o600)
        return folder

    def beacon(self, name, *flags, folder=None):
        """One shard, on the servers' CPU, edge and all."""
        folder = folder or self.pair("one")
        wss, plain, admin = (free_port(socket.SOCK_STREAM) for _ in range(3))
        server = self.bench.beacon(
            f"edge-{name}", "--shards", "1", "--wss", f"127.0.0.1:{wss}", "--wss-plain",
            f"127.0.0.1:{plain}", "--admin", f"127.0.0.1:{admin}", "--tls-cert", f"{folder}/cert.pem",
            "--tls-key", f"{folder}/key.pem", "--wss-first-use", *flags, cpu=self.bench.server_cpu)
        self.stack.callback(server.close)
        server.wss, server.plain, server.admin = wss, plain, admin
        return server

    def generator(self, *args):
        g = Generator(self.bench.load_cpu, *args)
        self.stack.callback(g.close)
        return g

    def sessions(self, server, count, kind="tls", small=0):
        """Returns the generator and what it said when all were up."""
        port = server.wss if kind == "tls" else server.plain
        g = self.generator("sessions", kind, port, count, server.pid, server.port, small)
        opened = g.answer(120)
        if not opened["all"]:
            self.problem(server.name, f"{opened['up']} of {count} sessions are open: {opened['reasons']}")
        return g, opened

    def check(self, where, tally):
        for what in ("lost", "wrong", "reordered", "sessions_lost"):
            if tally.get(what):
                self.problem(where, f"{tally[what]} of {tally['sent']} {what}")
        return tally

    # --- the parts ---

    def idle(self):
        server = self.beacon("idle", "--wss-handshake-total", IDLE_HANDSHAKES)
        time.sleep(1)
        before, tcp_before = rss_bytes(server.pid), tcp_memory_bytes()
        g, opened = self.sessions(server, IDLE_SESSIONS)
        time.sleep(3)
        up = opened["up"]
        each = (rss_bytes(server.pid) - before) / max(1, up)
        tcp = (tcp_memory_bytes() - tcp_before) / max(1, up)
        seconds = 5 if self.quick else 50  # the longer one sees a ping of each session
        spent, began = cpu_ns(server.pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_ns(server.pid) - spent) / 1e9 / (time.monotonic() - began)
        state = g.ask("status", 30)
        if state["lost"]:
            self.problem("idle", f"{state['lost']} sessions ended: {state['reasons']}")
        later = (rss_bytes(server.pid) - before) / max(1, up)
        limited = metric(server, "beacon_tls_handshakes_total", "limited")
        g.close()
        time.sleep(3)
        return {"sessions": up, "seconds": opened["seconds"], "failures": opened["failures"],
                "reasons": opened["reasons"], "handshakes_limited": limited, "bytes": each, "bytes_later": later,
                "tcp_bytes_both_ends": tcp, "cpu_share": share,
                "rss_before": before, "rss_after_all_left": rss_bytes(server.pid)}

    def udp_reference(self, server):
        """What bench_load says of UDP through the same beacon."""
        load = Load("beacon", server, udp_port(), RELAY_SESSIONS, self.bench.load_cpu)
        self.stack.callback(load.close)
        load.ask("register")
        return load

    def relay(self):
        generators, taken = {}, {}
        for kind in ("tls", "plain"):
            server = self.beacon(f"relay-{kind}", *UNLIMITED)
            generators[kind] = self.sessions(server, RELAY_SESSIONS, kind)[0]
            if kind == "tls":
                load = self.udp_reference(server)
        seconds = self.bench.options.seconds
        for number in range(self.rounds + 1):  # the first only warms up
            for kind, g in generators.items():
                for way in WAYS:
                    for name, how, rate in LOADS:
                        t = g.ask(f"relay {way[0]} {way[1]} 1200 {how} {rate} {seconds}", 30)
                        self.check(f"relay {kind} {way} {name}", t)
                        if number > 0:
                            taken.setdefault((kind, "-".join(way), name), []).append(t)
            for name, pattern in (("full, single", "random"), ("full, bulk", "bulk")):
                t = load.ask(f"relay 1200 {pattern} {seconds}")
                if number > 0:
                    taken.setdefault(("bench_load", "udp-udp", name), []).append(t)
        table = {}
        for (kind, way, name), tallies in taken.items():
            table.setdefault(f"{kind} {way}", {})[name] = {
                **medians(tallies, ("ns", "p50_us", "p99_us")),
                "min": min(t["ns"] for t in tallies), "max": max(t["ns"] for t in tallies),
                "per_s": statistics.median(t["right"] / t["seconds"] for t in tallies)}
        return table

    def fill(self, server, g):
        """Until the beacon drops much of what waits for those that do not read. Returns how much."""
        name = "beacon_wss_frames_dropped_total"
        before, dropped, until = metric(server, name), 0, time.monotonic() + 15
        while dropped < 50 * STUCK_SESSIONS / STUCK_EVERY and time.monotonic() < until:
            g.ask("stuff 300", 30)
            dropped = metric(server, name) - before
        if not dropped:
            self.problem("stuck", "nothing was dropped: the stuck ones were not stuck")
        return dropped

    def stuck(self):
        server = self.beacon("stuck", *UNLIMITED)
        g, _ = self.sessions(server, STUCK_SESSIONS, small=STUCK_EVERY)
        seconds, taken, dropped = (1 if self.quick else 4), {"no": [], "yes": []}, []
        for _ in range(self.rounds):
            for stuck in ("no", "yes"):
                g.ask(f"hold {stuck}", 30)
                if stuck == "yes":
                    dropped.append(self.fill(server, g))
                before = metric(server, "beacon_wss_frames_dropped_total")
                t = g.ask(f"even {STUCK_RATE} {seconds}", 60)
                self.check(f"stuck {stuck}", t)
                taken[stuck].append(t)
                if stuck == "no" and metric(server, "beacon_wss_frames_dropped_total") > before:
                    self.problem("stuck", "frames were dropped while all were reading")
        table = {stuck: medians(ts, ("p50_us", "p90_us", "p99_us", "max_us", "ns"))
                 for stuck, ts in taken.items()}
        table["dropped before the clock"] = dropped
        state = g.ask("status", 30)
        table["lost"], table["reasons"] = state["lost"], state["reasons"]
        return table

    def hello(self):
        seconds, table = (3 if self.quick else 10), {}
        for name, sources in FLOODS:
            server = self.beacon("hello")
            udp, _ = self.sessions(server, 0)
            spent = cpu_ns(server.pid)
            flood = self.generator("hello", server.wss, HELLOS, seconds, sources) if sources else None
            good = self.generator("handshakes", server.wss, HANDSHAKES_BESIDE, seconds, 100)
            relays = udp.ask(f"relay udp udp 1200 single {UDP_BESIDE} {seconds}", seconds + 20)
            handshakes = good.answer(seconds + 20)
            hellos = flood.answer(seconds + 30) if flood else {}
            self.check(f"hello, {name}", {w: relays[w] for w in ("sent", "lost", "wrong", "reordered")})
            table[name] = {"hellos": hellos, "handshakes": handshakes, "udp": relays,
                           "success": handshakes["good"] / max(1, handshakes["begun"]),
                           "server_cpu_share": (cpu_ns(server.pid) - spent) / 1e9 / seconds,
                           "limited": metric(server, "beacon_tls_handshakes_total", "limited")}
            flood and flood.close()
            server.close()
        return table

    def swap(self, link, number):
        """The folder of both files is exchanged at once."""
        os.symlink(self.pair(("one", "two")[number % 2]), f"{link}.new")
        os.replace(f"{link}.new", link)

    def reload(self):
        link = os.path.join(self.bench.directory, "tls-live")
        self.pair("two")
        self.swap(link, 0)
        server = self.beacon("reload", folder=link)
        seconds, number = (3 if self.quick else 10), 0
        g = self.generator("handshakes", server.wss, RELOAD_HANDSHAKES, seconds, 1024)
        end = time.monotonic() + seconds - SWAP_SECONDS
        while time.monotonic() < end:
            time.sleep(SWAP_SECONDS)
            number += 1
            self.swap(link, number)
            os.kill(server.pid, signal.SIGHUP)
        t = g.answer(seconds + 20)
        if t["failed"] or t["begun"] < RELOAD_HANDSHAKES * seconds * 0.95:
            self.problem("reload", f"{t['failed']} of {t['begun']} handshakes failed: {t['reasons']}")
        if set(t["names"]) != {"one", "two"}:
            self.problem("reload", f"certificates seen: {t['names']}")
        self.swap(link, number + 1)  # without a signal: the beacon looks by itself
        time.sleep(4)
        later = self.generator("handshakes", server.wss, 20, 1, 1024).answer(20)
        if set(later["names"]) != {("one", "two")[(number + 1) % 2]}:
            self.problem("reload", f"4 s after a swap without a signal: {later}")
        return {**t, "swaps": number}

    def ask_reloads(self, server, until):
        """Each is an event for all streams, so that the way to those that do not read fills. Returns
        how many there were, and the most bytes that waited."""
        asked, waiting = 0, 0
        while time.monotonic() < until:
            request = urllib.request.Request(f"http://127.0.0.1:{server.admin}/v1/reload", b"{}",
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                asked += answer.status == 202
            if asked % STREAM_EVENTS == 0:
                waiting = max(waiting, metric(server, "beacon_wss_queued_bytes"))
            time.sleep(1 / STREAM_EVENTS)
        return asked, waiting

    def streams(self):
        server = self.beacon("streams")
        seconds, table = (5 if self.quick else 25), {}
        for name, stuck, events in STREAM_CASES:
            spent = cpu_ns(server.pid)
            g = self.generator("streams", server.admin, STREAMS, stuck, seconds)
            asked, waiting = self.ask_reloads(server, time.monotonic() + seconds) if events else (0, 0)
            left = metric(server, "beacon_http_connections")
            t = g.answer(seconds + 60)
            if t["open"] != STREAMS or t["ended_healthy"] or not t["lags"]:
                self.problem("streams", f"{name}: {t}")
            if stuck and events and not waiting and not self.quick:
                self.problem("streams", f"{name}: nothing waited for the stuck ones")
            t["server_cpu_share"] = (cpu_ns(server.pid) - spent) / 1e9 / (seconds + t["open_seconds"])
            table[name] = {**t, "reloads": asked, "most_bytes_waiting": waiting,
                           "connections_at_end": left}
            time.sleep(1)
        return table


# --- figures to reach, and tables ---

def goals_of(edge):
    """Rows for report.goal: name, value, bound, and whether the value must be at least that."""
    idle, relay, stuck = (edge.get(part, {}) for part in ("idle", "relay", "stuck"))
    if idle:
        yield f"bytes a session, {IDLE_SESSIONS} idle ones", idle["bytes_later"], 26 * 1024
        yield f"seconds until {IDLE_SESSIONS} are open", idle["seconds"], 60
    for way in ("udp-wss", "wss-udp", "wss-wss"):
        for name, *_ in LOADS:
            if relay:
                yield (f"CPU of {way} / udp-udp, 1200 B, {name}",
                       relay[f"tls {way}"][name]["ns"] / relay["tls udp-udp"][name]["ns"], 4)
    if stuck:
        yield ("p99 with 10 % stuck, minus without, us",
               stuck["yes"]["p99_us"] - stuck["no"]["p99_us"], 1000)
    for name, row in edge.get("hello", {}).items():
        yield f"UDP lost, hellos from {name}", row["udp"]["lost"], 0
        yield f"handshakes that succeed, hellos from {name}", row["success"], 0.99, True
    if "reload" in edge:
        yield "handshakes that failed during reloads", edge["reload"]["failed"], 0
    for name, row in edge.get("streams", {}).items():
        yield f"p99 of a status event's lag, us, {name}", row.get("p99_us"), 100_000


def relay_rows(relay):
    rows = [["", *(name for name, *_ in LOADS)]]
    for variant, figures in relay.items():
        rows.append([variant] + [
            f"{f['ns']:.0f} ({f['min']:.0f}-{f['max']:.0f}) {f['per_s'] / 1000:.0f}k/s"
            if (f := figures.get(name)) else "-" for name, *_ in LOADS])
    return rows


def flat_rows(figures):
    return [[name, f"{v:.4g}" if isinstance(v, (int, float)) else json.dumps(v)]
            for name, v in figures.items()]


def tables_of(edge):
    for part, title in (("idle", "Idle sessions"), ("reload", "Handshakes during reloads")):
        if part in edge:
            yield title, flat_rows(edge[part])
    if "relay" in edge:
        yield "Relays of 1200 B, CPU-ns of the server each: median (least-most), rate", relay_rows(edge["relay"])
    if "stuck" in edge:
        yield "Relays to sessions, 10 % of them not reading", flat_rows(edge["stuck"])
    if "hello" in edge:
        yield "Beside 5000 ClientHellos a second", flat_rows(edge["hello"])
    if "streams" in edge:
        yield "Lag of status events", flat_rows(edge["streams"])
