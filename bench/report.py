"""What the figures must reach, and how they are printed."""
from cells import CELLS


def ratio(a, b):
    return a / b if a and b else None


def goal(name, value, bound, least=False):
    """least: the value must be at least the bound, else at most. None: was not measured."""
    met = None if value is None else (value >= bound if least else value <= bound)
    return {"name": name, "value": value, "bound": bound, "least": least, "met": met}


def relay_goals(relay):
    def ns(cell, variant):
        return relay.get(cell, {}).get(variant, {}).get("ns")

    for io in ("uring", "mmsg"):
        yield goal(f"{io} / echo, 64 B random", ratio(ns("64 B random", io),
                                                      ns("64 B random", "echo")), 1.15)
        for size in (64, 200, 1200):
            cell = f"{size} B random"
            yield goal(f"coturn / {io}, {cell}", ratio(ns(cell, "coturn"), ns(cell, io)), 1.25, True)
        for cell in ("1200 B bulk", "1200 B bulk, GRO sink"):
            yield goal(f"coturn / {io}, {cell}", ratio(ns(cell, "coturn"), ns(cell, io)), 6, True)
        for cell in ("1200 B runs of 4", "1200 B runs of 4, GRO sink"):
            yield goal(f"{io}: {cell} / random", ratio(ns(cell, io), ns("1200 B random", io)), 0.45)
    for cell, *_ in CELLS:
        pair = [ns(cell, "uring"), ns(cell, "mmsg")]
        yield goal(f"worse / better of uring and mmsg, {cell}",
                   max(pair) / min(pair) if all(pair) else None, 1.15)


def goals_of(results):
    answer, latency = results.get("answer", {}), results.get("latency", {})
    memory = results.get("memory", {})
    goals = list(relay_goals(results.get("relay", {})))
    stun = {v: figures["ns"] for v, figures in answer.get("STUN", {}).items()}
    for io in ("uring", "mmsg"):
        goals.append(goal(f"coturn / {io}, STUN", ratio(stun.get("coturn"), stun.get(io)), 1.5, True))
    for io in ("uring", "mmsg"):
        goals.append(goal(f"{io}: busy-poll p50 / blocking p50",
                          ratio(latency.get(f"{io} --busy-poll", {}).get("p50"),
                                latency.get(io, {}).get("p50")), 0.25))
    for name, bound in (("idle CPU share", 0.001), ("default, start MB", 64), ("1M nodes MB", 128),
                        ("room for 10M nodes MB", 1024), ("first answer s", 0.1)):
        goals.append(goal(name, memory.get(name), bound))
    return [g for g in goals if g["met"] is not None]


# --- output ---

def print_rows(title, rows):
    print(f"\n{title}")
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + str(row[0]).ljust(widths[0]) + "".join(
            "  " + str(cell).rjust(width) for cell, width in zip(row[1:], widths[1:])))


def print_table(title, table):
    variants = [v for v in ("uring", "mmsg", "echo", "coturn")
                if any(v in figures for figures in table.values())]
    rows = [["", *variants]]
    for cell, figures in table.items():
        rows.append([cell] + [f"{f['ns']:.0f} ({f['min']:.0f}-{f['max']:.0f}) {f['busy']:.0%}"
                              if (f := figures.get(v)) else "-" for v in variants])
    print_rows(title, rows)


def print_results(results):
    m = results["machine"]
    print(f"{m['kernel']}, {m['cpu']}, server on CPU {m['server_cpu']}, "
          f"generator on CPU {m['load_cpu']}, window {m['window']}")
    if results.get("codec"):
        print_rows("Pure code, ns per call",
                   [[name, f"{ns:.1f}"] for name, ns in results["codec"].items()])
    if results.get("relay"):
        print_table("CPU-ns per relayed packet: median (least-most), share of its CPU in use",
                    results["relay"])
    if results.get("answer"):
        print_table("CPU-ns per answered request", results["answer"])
    if results.get("latency"):
        print_rows("One packet at a time, 64 B, us", [["", "p50", "p90", "p99"]] + [
            [name] + [f"{t.get(p, 0):.1f}" for p in ("p50", "p90", "p99")]
            for name, t in results["latency"].items()])
    if results.get("memory"):
        print_rows("Memory, start and idling",
                   [[name, f"{v:.4g}"] for name, v in results["memory"].items()])
    if results["goals"]:
        print_rows("Figures to reach", [[g["name"], f"{g['value']:.3g}",
                                         f"{'>=' if g['least'] else '<='} {g['bound']:g}",
                                         "pass" if g["met"] else "MISS"] for g in results["goals"]])
    for line in results["skipped"]:
        print(f"\nskipped: {line}")
    for line in results["problems"]:
        print(f"\nPROBLEM: {line}")
