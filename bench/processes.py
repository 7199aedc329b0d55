"""The processes of a benchmark: servers under load and their generators."""
import contextlib
import ctypes
import json
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time

B = os.environ.get("B", "build")
UNLIMITED = ["--relay-rate", "10000000", "--relay-ip-rate", "10000000", "--reply-rate", "0", "--reply-total", "0",
             "--nursery-percent", "0"]


class Failure(Exception):
    """A server or the generator did not do its part; the text says which and why."""


# --- machine ---

def cpus():
    """(server's, generator's); the same when there is only one."""
    have = sorted(os.sched_getaffinity(0))
    return have[min(1, len(have) - 1)], have[0]


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def udp_port():
    return free_port(socket.SOCK_DGRAM)


def cpu_ns(pid):
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) / 1024


def cpu_model():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*: (.*)", f.read())
    return found[1] if found else platform.machine()


# --- processes ---

def child_setup(cpu):
    def setup():
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the benchmark
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
    return setup


class Server:
    """One process under load. `log` is a file in the benchmark's own directory."""

    def __init__(self, name, argv, port, cpu, directory):
        self.name, self.port = name, port
        self.log = tempfile.NamedTemporaryFile("w+", dir=directory, prefix=f"{name}-", delete=False)
        self.began = time.monotonic()
        try:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                            stderr=self.log, preexec_fn=child_setup(cpu))
        except OSError as error:
            raise Failure(f"{name}: {error}") from error
        self.pid = self.process.pid

    def fail(self, why):
        self.log.flush()
        with open(self.log.name) as f:
            raise Failure(f"{self.name}: {why}: {''.join(f.readlines()[-3:]).strip()}")

    def wait_stun(self, timeout=10.0):
        """Returns the seconds from exec to the first STUN answer."""
        request = struct.pack("!HHI12s", 1, 0, 0x2112A442, b"first answer")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.001)
            while time.monotonic() - self.began < timeout:
                if self.process.poll() is not None:
                    self.fail(f"ended with {self.process.returncode}")
                s.sendto(request, ("127.0.0.1", self.port))
                with contextlib.suppress(TimeoutError):
                    if s.recv(200)[8:20] == b"first answer":
                        return time.monotonic() - self.began
        return self.fail("no STUN answer")

    def wait_bound(self):
        while time.monotonic() - self.began < 5:
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode}")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                try:
                    s.bind(("127.0.0.1", self.port))
                except OSError:
                    return
            time.sleep(0.01)
        self.fail("does not listen")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Load:
    """The generator: commands in, one JSON line each out."""

    def __init__(self, target, server, sink_port, nodes, cpu):
        argv = [f"{B}/bench/bench_load", target, str(server.pid), str(server.port), str(sink_port),
                str(nodes)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, preexec_fn=child_setup(cpu))
        self.name = server.name
        self.window = self.answer()["window"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"{self.name}: the generator ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.kill()
        self.process.wait()
