"""What is measured, and for which servers it means something."""

CELLS = (  # name, datagram length, pattern, variants that it means something for
    ("64 B random", 64, "random", ("uring", "mmsg", "echo", "coturn")),
    ("200 B random", 200, "random", ("uring", "mmsg", "echo", "coturn")),
    ("1200 B random", 1200, "random", ("uring", "mmsg", "echo", "coturn")),
    ("1200 B bulk", 1200, "bulk", ("uring", "mmsg", "echo", "coturn")),
    ("1200 B bulk, GRO sink", 1200, "bulk", ("uring", "mmsg", "coturn")),
    ("1200 B runs of 4", 1200, "runs", ("uring", "mmsg")),
    ("1200 B runs of 4, GRO sink", 1200, "runs", ("uring", "mmsg")),
)
ANSWERS = (("Discover", "discover", ("uring", "mmsg")), ("STUN", "stun", ("uring", "mmsg", "coturn")))
