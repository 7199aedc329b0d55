/* gate - who may come in: so many connections of each source, so many TLS handshakes a second.
 *
 * A handshake is the dearest thing that a stranger can ask for (its first flight costs us a
 * signature), so on public listeners its budget is spent before any of it is done. Connections are
 * counted exactly, those of public listeners apart from the others: clients behind one address must
 * not keep that address from the metrics. What comes through a unix socket ([::]:0) is not counted.
 * The edge's thread only. */
#ifndef BEACON_WSS_GATE_H
#define BEACON_WSS_GATE_H

#include "wss/edge.h"

enum {
    GATE_PER_IPV4 = 64, /* connections of one source to listeners that are not public, ... */
    GATE_PER_IPV6_64 = 16,
    GATE_CELLS = 65536, /* of the handshake budgets, three for each source: 1 MiB */
};

enum gate_verdict {
    GATE_ENTERED,
    GATE_SOURCE_FULL,
    GATE_HANDSHAKES_SPENT,
};

struct gate;
struct gate *gate_new(unsigned connections); /* NULL: no memory */
void gate_free(struct gate *g);

/* Takes a place for `from`, and a handshake where one will follow: from the budget of its source, 8
 * times that of its /24 (IPv6: /48), 64 times that of its /16 (/32), and that of all. */
enum gate_verdict gate_enter(struct gate *g, const struct edge_limits *limits,
                             const struct edge_listener *listener, const struct endpoint *from,
                             uint64_t now_ns);
/* Gives the place back. Must have entered. */
void gate_leave(struct gate *g, const struct edge_listener *listener, const struct endpoint *from);

#endif
