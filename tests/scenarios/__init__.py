"""Scenarios: the real beacon, real sockets, messages by hand.

frame.py    what a scenario is, what it may expect, how the list of runs is made
beacon.py   one running beacon: start, log, /metrics, stop, and the checks at its end
wire.py     the messages and a node that speaks them; written from docs/PROTOCOL.md, not from proto/
ed25519.py  signatures of punch grants
lab.py      network namespaces, and refusals by the kernel (seccomp, limits)
The other files hold the scenarios, one subject each; tests/scenarios.py runs them.
"""
