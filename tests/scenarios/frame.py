"""What a scenario is, and what it may expect.

A scenario is a function that takes a Case and raises Failure (or any exception) when it fails and
Skip when this host cannot run it. @scenario says for which I/O ports and numbers of shards it runs.
"""

import os
import shutil
import time

from . import beacon as beacon_module

BUILD = os.environ.get("B", "build")
# Sanitized programs are several times slower: loads are smaller there, bounds on time wider.
SLOW = os.environ.get("BEACON_SLOW") == "1" or os.path.basename(BUILD.rstrip("/")) in ("asan", "tsan")
# For what must come: long, since only a failure waits for all of it, and a busy host is no failure.
PATIENCE = 15 if SLOW else 5
PORTS = ("uring", "mmsg")


class Failure(Exception):
    """The beacon did not do what it should."""


class Skip(Exception):
    """This host cannot run the scenario; the text says why."""


class Case:
    """One run of one scenario: its variant, and the beacons it started."""

    def __init__(self, io, shards):
        self.io, self.shards = io, shards

    def beacon(self, *flags, **how):
        return beacon_module.Beacon(BUILD, ("--io", self.io, "--shards", str(self.shards)) + flags, **how)


class Scenario:
    def __init__(self, function, io, shards, needs, sanitized):
        self.function, self.io, self.shards, self.needs, self.sanitized = function, io, shards, needs, sanitized

    def runs(self):
        if SLOW and not self.sanitized:
            return
        for io in self.io:
            for shards in self.shards:
                yield "%s.%s [%s x%d]" % (
                    self.function.__module__.rsplit(".", 1)[-1], self.function.__name__, io, shards), io, shards

    def missing(self):
        """Why this host cannot run it, or None."""
        for need in self.needs:
            if need == "root":
                if os.geteuid() != 0:
                    return "needs root (network namespaces)"
            elif shutil.which(need) is None:
                return "needs the program %s" % need
        return None


SCENARIOS = []


def scenario(io=PORTS, shards=(1,), needs=(), sanitized=True):
    """sanitized=False: a long wait for what others do with messages, of which a sanitizer sees no more."""
    def register(function):
        SCENARIOS.append(Scenario(function, io, shards, needs, sanitized))
        return function
    return register


def equal(got, want, what):
    if got != want:
        raise Failure("%s: got %s, want %s" % (what, shown(got), shown(want)))


def true(fact, what):
    if not fact:
        raise Failure(what)


def within(got, least, most, what):
    if not least <= got <= most:
        raise Failure("%s: got %s, want %s to %s" % (what, got, least, most))


def shown(value):
    return value.hex() if isinstance(value, bytes) and len(value) <= 120 else repr(value)[:300]


def eventually(what, test, seconds=3.0):
    """Waits until test() is true; returns what it returned."""
    end = time.monotonic() + seconds * (3 if SLOW else 1)
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure("did not happen in time: %s" % what)
        time.sleep(0.03)
