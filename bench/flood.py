"""Floods a beacon with random and mutated datagrams until it has received COUNT of them; then every one must
have a verdict, memory must not have grown, and an honest node must still be served.

make flood FLOOD_COUNT=100000000"""
import os
import socket
import subprocess
import sys
import time
import urllib.request

from processes import B, free_port, rss_mb, udp_port

COUNT, ROUND = int(os.environ.get("FLOOD_COUNT", "10000000")), 2_000_000


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in values}


def balance(port):
    m = metrics(port)
    return int(m["beacon_received_packets_total"]), int(sum(v for k, v in m.items() if k.startswith("beacon_verdicts_total")))


def served(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        for _ in range(5):
            s.sendto(bytes.fromhex("0100000000"), ("127.0.0.1", port))
            try:
                if s.recv(100)[:2] == b"\x02\x04":
                    return True
            except TimeoutError:
                continue
    return False


def flood(io):
    port, http = udp_port(), free_port(socket.SOCK_STREAM)
    beacon = subprocess.Popen([f"{B}/beacon", "--addr", f"127.0.0.1:{port}", "--io", io, "--health", f"127.0.0.1:{http}",
                               "--log-level", "error", "--drain-time", "0s"])
    try:
        time.sleep(1)
        received, seed, before = 0, 1, None
        while received < COUNT:
            subprocess.run([f"{B}/bench/bench_flood", str(port), str(min(ROUND, COUNT)), str(seed)],
                           stdout=subprocess.DEVNULL, check=True)
            seed += 1
            if beacon.poll() is not None:
                return [f"{io}: ended with {beacon.returncode}"]
            received, _ = balance(http)
            before = before or rss_mb(beacon.pid)
            print(f"flood: {io}: {received / 1e6:.0f} of {COUNT / 1e6:.0f} M received, RSS {rss_mb(beacon.pid):.1f} MB",
                  file=sys.stderr, flush=True)
        time.sleep(1)
        received, verdicts = balance(http)
        grown, problems = rss_mb(beacon.pid) - before, []
        if received != verdicts:
            problems.append(f"{io}: {received} received, {verdicts} verdicts")
        if grown > 0.25 + COUNT / 1e7 / 16:  # 64 KiB for each 10 M, and what the first scrapes take
            problems.append(f"{io}: memory grew by {grown:.2f} MB")
        if not served(port):
            problems.append(f"{io}: does not answer any more")
        print(f"{io}: {received} datagrams received, as many verdicts: {received == verdicts}, RSS grew by {grown * 1024:.0f} KiB")
        return problems
    finally:
        beacon.terminate()
        if beacon.wait(10) != 0:
            raise SystemExit(f"{io}: exit code {beacon.returncode}")


found = [problem for io in ("uring", "mmsg") for problem in flood(io)]
for line in found:
    print("PROBLEM", line)
sys.exit(1 if found else 0)
