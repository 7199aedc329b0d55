"""One running beacon.

`with case.beacon(...) as b:` starts the program on ports that the kernel chooses and waits until it
is ready. At the end of the block it checks what must hold of every run: each datagram got exactly
one verdict, SIGTERM ends it with code 0, no sanitizer and nothing else but log lines was on stderr.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

from . import frame, lab

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
QUICK_FLAGS = ("--max-nodes", "4096", "--drain-time", "0s", "--log-format", "json")


def environment(extra=None):
    """Ours, without what would change the beacon, and with sanitizers that do not hide."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BEACON_", "NOTIFY_", "JOURNAL_", "WATCHDOG_"))}
    env.update(ASAN_OPTIONS="exitcode=99", TSAN_OPTIONS="exitcode=99", LSAN_OPTIONS="exitcode=99",
               UBSAN_OPTIONS="print_stacktrace=1")
    env.update(extra or {})
    return env


def place(text):
    """"[::1]:9001" -> ("::1", 9001)."""
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Beacon:
    def __init__(self, build, flags, addr="127.0.0.1:0", health="127.0.0.1:0", metrics="127.0.0.1:0",
                 space=None, env=None, preexec=None, checks=True):
        self.flags = [os.path.join(build, "beacon")]
        for name, value in (("--addr", addr), ("--health", health), ("--metrics", metrics)):
            self.flags += [name, value] if value is not None else []
        given = {f.split("=")[0] for f in flags if f.startswith("--")}
        for name, value in zip(QUICK_FLAGS[::2], QUICK_FLAGS[1::2]):
            self.flags += [name, value] if name not in given else []
        self.flags += flags
        self.space, self.env, self.preexec, self.checks = space, env, preexec, checks
        self.lines, self.noise, self.at = [], [], {}
        self.changed = threading.Condition()
        self.held = contextlib.ExitStack()

    # --- start and end ---

    def __enter__(self):
        with lab.inside(self.space):
            self.process = subprocess.Popen(
                self.flags, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env=environment(self.env), preexec_fn=self.preexec)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        try:
            self.wait_log("ready", seconds=10)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is not None:
                self.explain(error)
                return
            if self.process.poll() is None:
                if self.checks:
                    self.check_balance()
                self.process.send_signal(signal.SIGTERM)
                self.wait_exit(0)
            self.reader.join(5)
            self.check_stderr()
        finally:
            self.kill()
            self.held.close()

    def keep(self, resource):
        """Closed with the beacon."""
        self.held.callback(resource.close)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(5)
        self.process.stderr.close()

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, want, seconds=5.0):
        try:
            code = self.process.wait(seconds * (3 if frame.SLOW else 1))
        except subprocess.TimeoutExpired:
            raise frame.Failure("did not exit after the signal") from None
        frame.equal(code, want, "exit code")

    # --- log ---

    def read(self):
        for raw in self.process.stderr:
            text = raw.decode("utf-8", "replace").rstrip("\n")
            with self.changed:
                try:
                    line = json.loads(text)
                    self.lines.append(line)
                    if line.get("msg") == "listening" and "addr" in line:
                        self.at.setdefault(line["component"], []).append(place(line["addr"]))
                except (ValueError, KeyError):
                    self.noise.append(text)
                self.changed.notify_all()

    def wait_log(self, message, seconds=3.0, **fields):
        """The first log line with that message and those fields."""
        def found():
            for line in self.lines:
                if line.get("msg") == message and all(line.get(k) == v for k, v in fields.items()):
                    return line
            return None
        end = time.monotonic() + seconds * (3 if frame.SLOW else 1)
        with self.changed:
            while not found():
                rest = end - time.monotonic()
                if rest <= 0 or (self.process.poll() is not None and not self.reader.is_alive()):
                    raise frame.Failure("no log line %r (exit code %s); last lines: %s" % (
                        message, self.process.poll(), self.tail()))
                self.changed.wait(min(rest, 0.2))
            return found()

    def tail(self):
        return " | ".join([json.dumps(line) for line in self.lines[-3:]] + self.noise[-12:])

    def explain(self, error):
        """A beacon that died, or that a sanitizer spoke of, is the reason for whatever failed after it."""
        time.sleep(0.2)  # for its last words
        if self.process.poll() is not None:
            self.reader.join(5)
        if self.noise:
            raise frame.Failure("%s; and on stderr, exit code %s: %s" % (
                error, self.process.poll(), " | ".join(self.noise[:25]))) from error

    def check_stderr(self):
        if self.noise:
            raise frame.Failure("stderr has more than log lines: %s" % " | ".join(self.noise[:12]))

    # --- where it is ---

    @property
    def udp(self):
        return self.at["udp"][0]

    def udp_at(self, ip):
        """The service at one of the addresses of a wildcard beacon."""
        return ip, self.udp[1]

    # --- HTTP ---

    def get(self, path, listener="health", method="GET"):
        host, port = self.at[listener][0]
        with lab.inside(self.space):
            connection = http.client.HTTPConnection(host, port, timeout=frame.PATIENCE)
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

    def metrics_text(self):
        status, text = self.get("/metrics", "metrics")
        frame.equal(status, 200, "status of /metrics")
        return text

    def samples(self):
        """[(name, labels, value)] of /metrics."""
        found = []
        for line in self.metrics_text().splitlines():
            if line and not line.startswith("#"):
                match = SAMPLE.match(line)
                if not match:
                    raise frame.Failure("not a Prometheus sample: %r" % line)
                found.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))
        return found

    def metric(self, name, **labels):
        """Sum over all series of that name with those labels. No such series is a failure."""
        values = [v for n, has, v in self.samples() if n == name and labels.items() <= has.items()]
        if not values:
            raise frame.Failure("no series %s %s" % (name, labels))
        return int(sum(values))

    def verdict(self, kind, reason, outcome=None):
        more = {"outcome": outcome} if outcome else {}
        return self.metric("beacon_verdicts_total", type=kind, reason=reason, **more)

    def counts(self, kind, reason, want, outcome=None):
        """Waits until the verdict was given so often; more is a failure."""
        seen = None
        end = time.monotonic() + frame.PATIENCE
        while time.monotonic() < end:
            seen = self.verdict(kind, reason, outcome)
            if seen >= want:
                break
            time.sleep(0.02)
        frame.equal(seen, want, "verdicts %s %s" % (kind, reason or "(plain)"))

    def nodes(self, want, what, **labels):
        """The gauge of nodes, which a shard sets when it has sent its answers. More is a failure too."""
        seen, end = None, time.monotonic() + frame.PATIENCE
        while time.monotonic() < end and seen != want:
            time.sleep(0.02)
            seen = self.metric("beacon_nodes", **labels)
        frame.equal(seen, want, what)

    def check_balance(self):
        """Every datagram that was received got exactly one verdict."""
        end = time.monotonic() + frame.PATIENCE
        while True:
            samples = self.samples()
            received = sum(v for n, _, v in samples if n == "beacon_received_packets_total")
            verdicts = sum(v for n, _, v in samples if n == "beacon_verdicts_total")
            if received == verdicts:
                return
            if time.monotonic() > end:
                raise frame.Failure("received %d datagrams, gave %d verdicts" % (received, verdicts))
            time.sleep(0.05)

    def resident_kib(self):
        with open("/proc/%d/statm" % self.process.pid) as f:
            return int(f.read().split()[1]) * 4


def run(build, *flags, env=None, preexec=None, seconds=10):
    """For runs that end by themselves: (exit code, stdout, stderr)."""
    done = subprocess.run([os.path.join(build, "beacon")] + list(flags), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env=environment(env), preexec_fn=preexec,
                          timeout=seconds * (3 if frame.SLOW else 1))
    return done.returncode, done.stdout, done.stderr
