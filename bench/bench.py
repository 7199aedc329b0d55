#!/usr/bin/env python3
"""Measures the beacon beside a bare echo loop and coturn: see bench/README.md.

Servers run on one CPU, generator and sink on another. All servers are up at the same time and idle
but for the one under load; their rounds are interleaved, so a change of the machine hits all alike.
"""
import argparse
import contextlib
import http.client
import json
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # no __pycache__ in the source tree
import edge
import mesh
from cells import ANSWERS, CELLS
from processes import (B, UNLIMITED, Failure, Load, Server, child_setup, cpu_model, cpu_ns, cpus,
                       free_port, rss_mb, udp_port)
from report import goal, goals_of, print_results, print_rows

PARTS = ("codec", "relay", "answer", "latency", "memory", "edge", "mesh")
NODES = 100_000


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options, stack):
        self.options, self.stack, self.say = options, stack, say
        self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="beacon-bench-"))
        self.server_cpu, self.load_cpu = cpus()
        self.loads, self.problems, self.skipped = {}, [], []

    def keep(self, thing):
        self.stack.callback(thing.close)
        return thing

    # --- starting servers ---

    def beacon(self, name, *flags, cpu=None, port=None):
        port, metrics = port or udp_port(), free_port(socket.SOCK_STREAM)
        health = free_port(socket.SOCK_STREAM)
        argv = [f"{B}/beacon", "--addr", f"127.0.0.1:{port}", "--health", f"127.0.0.1:{health}",
                "--metrics", f"127.0.0.1:{metrics}", *flags]
        server = self.keep(Server(name, argv, port, cpu, self.directory))
        server.metrics, server.answer_s = metrics, server.wait_stun()
        return server

    def nodes_of(self, server):
        c = http.client.HTTPConnection("127.0.0.1", server.metrics, timeout=5)
        try:
            c.request("GET", "/metrics")
            text = c.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.problems.append(f"{server.name}: /metrics: {error}")
            text = ""
        finally:
            c.close()
        return sum(float(n) for n in re.findall(r"^beacon_nodes(?:\{[^}]*\})? (\S+)$", text, re.M))

    def register(self, server, nodes, cpu):
        load = self.keep(Load("beacon", server, udp_port(), nodes, cpu))
        self.check(f"{server.name}: registration", load.ask("register"))
        time.sleep(1.2)  # the gauge is written once a second at the latest
        stored = self.nodes_of(server)
        if stored != nodes:
            self.problems.append(f"{server.name}: {stored:.0f} of {nodes} nodes are stored")
        return load

    def pinned_beacon(self, name, io, *flags):
        server = self.beacon(name, "--shards", "1", "--io", io, *UNLIMITED, *flags,
                             cpu=self.server_cpu)
        return server, self.register(server, NODES, self.load_cpu)

    def echo(self):
        port, sink = udp_port(), udp_port()
        server = self.keep(Server("echo", [f"{B}/bench/bench_echo", str(port), str(sink), str(NODES)], port,
                                  self.server_cpu, self.directory))
        server.wait_bound()
        return self.keep(Load("echo", server, sink, NODES, self.load_cpu))

    def coturn(self):
        program = shutil.which("turnserver")
        if not program:
            self.skipped.append("coturn: turnserver is not installed (apt-get install coturn)")
            return None
        port = udp_port()
        argv = [program, "-n", "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1",
                "--listening-port", str(port), "--no-auth", "--no-tls", "--no-dtls", "--no-cli",
                "--cli-password", "unused", "--allow-loopback-peers", "--relay-threads", "1",
                "--min-port", "24000", "--max-port", "25999", "--db", f"{self.directory}/turn.db",
                "--pidfile", f"{self.directory}/turn.pid", "--no-stdout-log",
                "--log-file", f"{self.directory}/turn.log"]
        server = self.keep(Server("coturn", argv, port, self.server_cpu, self.directory))
        server.wait_stun()
        return self.keep(Load("turn", server, udp_port(), NODES, self.load_cpu))

    def start_variants(self):
        """All of them, once, for relay, answer and latency. What cannot run is skipped, and said."""
        starters = {"uring": lambda: self.pinned_beacon("uring", "uring")[1],
                    "mmsg": lambda: self.pinned_beacon("mmsg", "mmsg")[1],
                    "echo": self.echo, "coturn": self.coturn}
        for name, start in starters.items():
            say(f"start {name}")
            try:
                load = start()
            except Failure as failure:
                self.problems.append(str(failure))
                continue
            if load:
                self.loads[name] = load

    # --- measuring ---

    def check(self, where, tally):
        """A closed loop loses nothing, reorders nothing and brings back the right bytes."""
        for what in ("lost", "wrong", "reordered", "late"):
            if tally.get(what):
                self.problems.append(f"{where}: {tally[what]} of {tally.get('sent', '?')} {what}")

    def rounds(self, title, jobs):
        """jobs: (cell, variant, command). Returns {cell: {variant: figures}}, medians over rounds."""
        jobs = [(c, v, command) for c, v, command in jobs if v in self.loads]
        taken = {}
        for number in range(self.options.rounds + 1):  # the first only warms up
            say(f"{title}, round {number}/{self.options.rounds}, {len(jobs)} cells")
            for cell, variant, command in jobs:
                seconds = 0.1 if number == 0 else self.options.seconds
                tally = self.loads[variant].ask(command.format(seconds=seconds))
                self.check(f"{title} {cell} {variant}", tally)
                if number > 0:
                    taken.setdefault((cell, variant), []).append(tally)
        table = {}
        for (cell, variant), tallies in taken.items():
            ns = [t["ns"] for t in tallies]
            table.setdefault(cell, {})[variant] = {
                "ns": statistics.median(ns), "min": min(ns), "max": max(ns),
                "kpps": 1e6 / statistics.median(ns) if all(ns) else 0,
                "busy": statistics.median(t["cpu_ns"] / 1e9 / t["seconds"] for t in tallies)}
        return table

    def codec(self):
        say("codec")
        out = subprocess.run([f"{B}/bench/bench_codec"], stdout=subprocess.PIPE, check=False,
                             preexec_fn=child_setup(self.server_cpu))
        if out.returncode != 0:
            self.problems.append(f"bench_codec ended with {out.returncode}")
            return {}
        costs = json.loads(out.stdout)
        made = costs.pop("making its input")
        for name in costs:
            costs[name] -= made if "whole decision" in name else 0
        return costs

    def relay(self):
        return self.rounds("relay", [
            (name, v, f"relay {length} {pattern} {{seconds}}{' merged' if 'GRO' in name else ''}")
            for name, length, pattern, variants in CELLS for v in variants])

    def answer(self):
        return self.rounds("answer", [(name, v, f"{command} {{seconds}}")
                                      for name, command, variants in ANSWERS for v in variants])

    def latency_of(self, name, loads):
        taken = []
        for _ in range(min(3, self.options.rounds)):
            tally = loads.ask(f"latency 64 {self.options.packets}")
            self.check(f"latency {name}", tally)
            if "p50" not in tally:
                return {}
            taken.append(tally)
        return {p: statistics.median(t[p] for t in taken) for p in ("p50", "p90", "p99")}

    def latency(self):
        table = {}
        for name, load in self.loads.items():
            say(f"latency {name}")
            table[name] = self.latency_of(name, load)
        for io in ("uring", "mmsg"):
            name = f"{io} --busy-poll"
            say(f"latency {name}")
            try:
                server, load = self.pinned_beacon(f"{io}-busy", io, "--busy-poll")
            except Failure as failure:
                self.problems.append(str(failure))
                continue
            table[name] = self.latency_of(name, load)
            server.close()  # it spins: no other server may share its CPU
        return table

    def idle(self, pid):
        seconds = self.options.idle_seconds
        time.sleep(1.5)  # start-up's own work is over
        before, began = cpu_ns(pid), time.monotonic()
        time.sleep(seconds)
        return (cpu_ns(pid) - before) / 1e9 / (time.monotonic() - began)

    def memory(self):
        say("memory: start")
        starts, table = [], {}
        for _ in range(self.options.rounds):
            server = self.beacon("default", *UNLIMITED)
            starts.append(server.answer_s)
            if len(starts) < self.options.rounds:
                server.close()
        table["first answer s"] = statistics.median(starts)
        table["default, start MB"] = rss_mb(server.pid)
        say("memory: idle")
        table["idle CPU share"] = self.idle(server.pid)
        say("memory: 100k nodes")
        self.register(server, NODES, None).close()
        table["default, 100k nodes MB"] = rss_mb(server.pid)
        server.close()
        say("memory: 1M nodes")
        server = self.beacon("million", "--max-nodes", "1000000", *UNLIMITED)
        self.register(server, 1_000_000, None).close()
        table["1M nodes MB"] = rss_mb(server.pid)
        server.close()
        say("memory: room for 10M nodes")
        server = self.beacon("ten million", "--max-nodes", "10000000", *UNLIMITED)
        table["room for 10M nodes MB"] = rss_mb(server.pid)
        server.close()
        return table

    def edge(self):
        return edge.Edge(self).run(self.options.edge)

    def mesh(self):
        return mesh.Mesh(self).run(self.options.mesh)


def parse():
    p = argparse.ArgumentParser(description="CPU cost, latency and memory of the beacon")
    p.add_argument("--json", action="store_true", help="one JSON document on stdout")
    p.add_argument("--quick", action="store_true", help="2 rounds of 0.3 s: a first impression")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", default=",".join(PARTS), help="of " + ",".join(PARTS))
    p.add_argument("--edge", default=",".join(edge.PARTS), help="of " + ",".join(edge.PARTS))
    p.add_argument("--mesh", default=",".join(mesh.PARTS), help="of " + ",".join(mesh.PARTS))
    options = p.parse_args()
    options.only, options.edge = options.only.split(","), options.edge.split(",")
    options.mesh = options.mesh.split(",")
    if not set(options.only) <= set(PARTS) or options.rounds < 1:
        p.error("--only takes " + ",".join(PARTS) + "; --rounds at least 1")
    if not set(options.edge) <= set(edge.PARTS):
        p.error("--edge takes " + ",".join(edge.PARTS))
    if not set(options.mesh) <= set(mesh.PARTS):
        p.error("--mesh takes " + ",".join(mesh.PARTS))
    options.seconds, options.packets, options.idle_seconds = 0.5, 2000, 5.0
    if options.quick:
        options.rounds, options.seconds, options.packets = 2, 0.3, 500
    return options


def main():
    options = parse()
    results = {}
    with contextlib.ExitStack() as stack:
        bench = Bench(options, stack)
        if {"relay", "answer", "latency"} & set(options.only):
            bench.start_variants()
        for part in ("relay", "answer", "latency", "codec", "memory", "edge", "mesh"):
            if part in options.only:
                try:
                    results[part] = getattr(bench, part)()
                except Failure as failure:
                    bench.problems.append(str(failure))
        results["machine"] = {
            "kernel": platform.release(), "cpu": cpu_model(), "server_cpu": bench.server_cpu,
            "load_cpu": bench.load_cpu,
            "window": min((load.window for load in bench.loads.values()), default=0)}
        results["skipped"], results["problems"] = bench.skipped, bench.problems
    figures = {part: results.get(part.__name__, {}) for part in (edge, mesh)}
    results["goals"] = goals_of(results) + [goal(*row) for part in figures for row in part.goals_of(figures[part])]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for part, found in figures.items():
            for title, rows in part.tables_of(found):
                print_rows(title, rows)
        print_results(results)
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
