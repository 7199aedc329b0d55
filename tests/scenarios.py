#!/usr/bin/env python3
"""Runs the scenarios against $B/beacon (B: the build folder, default "build").

usage: scenarios.py [-k PART-OF-NAME] [-j JOBS] [-v] [-l]
-k: only runs whose name contains this, may be given again; -j: so many at a time, most of their time is
waiting; -v: whole traces; -l: list and end.
Ends with "N passed, N failed, N skipped"; exit code 1 when one failed.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from scenarios import lab
from scenarios.frame import BUILD, SCENARIOS, SLOW, Case, Failure, Skip
from scenarios import (dialogue, relays, punches, stun, tables, start, running, health,  # noqa: F401
                       hosts, flood, wss, clients, admin, watching, certificates, hostile, mesh, meshes, original,
                       takeover, registry)

LIMIT_SECONDS = 90 if SLOW else 30


def too_long(number, where):
    raise Failure("took longer than %d s" % LIMIT_SECONDS)


def run_one(run):
    """("passed" | "failed" | "skipped", reason, trace, seconds)."""
    begin = time.monotonic()
    return (*judge(*run), time.monotonic() - begin)


def judge(index, io, shards):
    scenario = SCENARIOS[index]
    missing = scenario.missing()
    if missing:
        return "skipped", missing, ""
    case = Case(io, shards)
    case.lab = lab.Lab()
    signal.alarm(LIMIT_SECONDS)
    try:
        scenario.function(case)
        return "passed", "", ""
    except Skip as why:
        return "skipped", str(why), ""
    except Exception as error:
        return "failed", "%s: %s" % (type(error).__name__, error), traceback.format_exc()
    finally:
        signal.alarm(0)
        case.lab.close()


def main():
    parser = argparse.ArgumentParser(description="Runs the beacon's scenarios.")
    parser.add_argument("-k", action="append", default=[], metavar="PART", help="only runs with this in their name")
    parser.add_argument("-j", type=int, default=3 if SLOW else 4, metavar="JOBS", help="so many at a time")
    parser.add_argument("-v", action="store_true", help="print the trace of a failure")
    parser.add_argument("-l", action="store_true", help="list the runs")
    options = parser.parse_args()

    runs = [(name, (index, io, shards)) for index, s in enumerate(SCENARIOS) for name, io, shards in s.runs()
            if not options.k or any(part in name for part in options.k)]
    if options.l:
        print("\n".join(name for name, _ in runs))
        return 0
    if not os.access(os.path.join(BUILD, "beacon"), os.X_OK):
        print("no program %s/beacon: build it first\n0 passed, 1 failed, 0 skipped" % BUILD)
        return 1
    signal.signal(signal.SIGALRM, too_long)
    tally = {"passed": 0, "failed": 0, "skipped": 0}
    with multiprocessing.get_context("fork").Pool(options.j) as pool:
        done = pool.imap(run_one, [run for _, run in runs])
        for (name, _), (outcome, reason, trace, seconds) in zip(runs, done):
            tally[outcome] += 1
            print("%-7s %5.1fs  %s%s" % (outcome, seconds, name, reason and ": " + reason), flush=True)
            if trace and options.v:
                print(trace, flush=True)
    if not runs:
        print("no scenario has such a name")
        tally["failed"] = 1
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % tally)
    return 1 if tally["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
