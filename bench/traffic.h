/* traffic - relays between UDP nodes and WebSocket sessions, at a rate or in a closed loop.
 *
 * Each delivery has its type, sender, length, destination and order checked, one in 64 all its
 * bytes. Flow i has one sender and one destination: session i, or UDP node i at an address of its
 * own; between sessions, the first half of them sends to the second. The time stamp inside gives
 * the latency. One thread. */
#ifndef BEACON_BENCH_TRAFFIC_H
#define BEACON_BENCH_TRAFFIC_H

#include <sys/types.h>
#include "bench/swarm.h"
#include "bench/udp.h"

enum {
    TRAFFIC_UDP_NODES = 64,
    TRAFFIC_UDP_IDS = 0x40000000,    /* node ids of the UDP nodes, and on */
    TRAFFIC_UDP_IPS = 0x7f030000,    /* and their addresses */
    TRAFFIC_UDP_SENDER = 0x50000000, /* the one UDP sender's id */
    TRAFFIC_WINDOW = 128,
    TRAFFIC_BULK_UDP = 32, /* datagrams of one UDP_SEGMENT message */
    TRAFFIC_BULK_WSS = 13, /* frames of 1200 bytes that fill one TLS record */
};

struct traffic_run {
    bool from_udp, to_udp;
    bool bulk;     /* one flow, many messages a write; else each message is a write of its own */
    size_t len;    /* of the relay message, header and all */
    uint64_t rate; /* messages a second, evenly spaced; 0: closed loop */
    double seconds;
    bool skip_small; /* tallies only sessions with ordinary receive buffers */
};

struct traffic_tally {
    uint64_t sent, right, wrong, reordered, lost, late;
    uint64_t cpu_ns; /* of the server, from idle to idle */
    double seconds;
    unsigned samples; /* of latency */
};

struct traffic {
    struct swarm *swarm;
    pid_t pid; /* of the beacon */
    uint16_t server_port;
    int udp_in, udp_out;
    struct udp_batch send;
    struct udp_arrivals arrivals;
    uint64_t *last_seq; /* of each flow */
    double *latency_us;

    /* This run. */
    struct traffic_run run;
    uint32_t number;
    unsigned flows;
    uint64_t seq, last_arrival_ns;
    struct traffic_tally tally;
};

/* Registers the UDP nodes. Ends the process when it cannot. */
struct traffic *traffic_open(struct swarm *s, pid_t pid, uint16_t server_port);
/* Sends for so long, then waits for what is still on its way. */
void traffic_go(struct traffic *t, const struct traffic_run *run);
/* One line of JSON without its braces. */
void traffic_print(struct traffic *t);
/* Fills the buffers of all sessions with small ones: `count` relays to each. */
void traffic_stuff(struct traffic *t, unsigned count, size_t len);
/* Reads everything until nothing came for `quiet_ns`. */
void traffic_drain(struct traffic *t, uint64_t quiet_ns);
void traffic_close(struct traffic *t);
/* For the swarm. */
wsclient_message traffic_message;

#endif
