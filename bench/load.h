/* load - the closed loop: at most `window` datagrams are on their way at any time.
 *
 * So the server is always busy and nothing is lost for want of room: a loss is a finding. Datagrams
 * leave from one socket and arrive, relayed or answered, at another or the same; each arrival is
 * checked. One thread. */
#ifndef BEACON_BENCH_LOAD_H
#define BEACON_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "bench/udp.h"

enum target {
    TARGET_BEACON, /* relay messages, delivered to the node's own address */
    TARGET_ECHO,   /* the same messages, sent on unchanged to the sink */
    TARGET_TURN,   /* ChannelData of TURN clients, one peer */
};

enum arrival {
    ARRIVAL_RIGHT,
    ARRIVAL_WRONG, /* bytes, address or length are not what was asked for */
    ARRIVAL_LATE,  /* of an earlier run that gave it up for lost */
};

enum pattern {
    PATTERN_RANDOM, /* each datagram to a node of its own */
    PATTERN_RUNS,   /* the sender cuts messages into 32, runs of 4 have the same node */
    PATTERN_BULK,   /* the same, all to one node */
};

struct tally {
    uint64_t sent, right, wrong, late, reordered, lost;
    uint64_t cpu_ns; /* of the server, from idle to idle */
    double seconds;
};

struct load {
    /* Fixed at start. */
    enum target target;
    pid_t pid; /* of the server, for its CPU time */
    uint16_t server_port, sink_port;
    int out, in; /* relays leave by `out`; all else leaves by `in`, and all arrives there */
    uint32_t nodes;
    unsigned window;
    uint64_t *last_seq; /* of each node: order of delivery */
    bool *registered;   /* of each node: it had its answer */

    /* Over all runs. */
    uint32_t run;
    uint64_t seq, random;
    struct udp_batch send;
    struct udp_arrivals arrivals;

    /* This run. */
    const struct exchange *exchange;
    enum pattern pattern;
    bool merge; /* the sink takes merged messages */
    size_t len; /* of each datagram sent */
    unsigned segments;
    uint32_t node; /* of the datagram before */
    struct tally tally;
};

/* What is sent and what must come back. */
struct exchange {
    void (*lay_out)(struct load *l);          /* once a run: what is the same in all datagrams */
    void (*fill)(struct load *l, unsigned i); /* datagram i of the batch to send */
    enum arrival (*check)(struct load *l, const struct udp_datagram *d);
};
extern const struct exchange relay_exchange, discover_exchange, register_exchange, stun_exchange;

/* The address and id of node i. Ids are spread like real ones, not counted up. */
static inline uint32_t node_ip(uint32_t node)
{
    return 0x7f010000 + node;
}
static inline uint32_t node_id(uint32_t node)
{
    return (node + 1) * 2654435761u;
}

uint32_t load_random(struct load *l, uint32_t below);

/* Sends until `seconds` have passed or `count` datagrams are sent, then waits for the rest. */
struct tally load_run(struct load *l, double seconds, uint64_t count);

/* Sends `rate` datagrams a second for so long, whatever arrives, then waits for the rest. l->tally
 * says what became of them, but for the CPU time. */
struct stream {
    double rate, seconds;
    uint64_t gap_ns;      /* the longest time between two arrivals */
    uint64_t send_gap_ns; /* and between two sends: what the generator itself has missed */
};
void load_stream(struct load *l, struct stream *s);

/* Sends one datagram and spins until it is back. Returns ns, or 0 when it got lost. */
uint64_t load_one(struct load *l);
/* Before the first load_one. */
void load_begin(struct load *l);

#endif
