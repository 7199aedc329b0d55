/* stats - what every lane counts: one list of verdicts, one of I/O figures.
 *
 * Holds: every datagram received gets exactly one verdict, so received == sum of verdicts once the
 * mailboxes are empty. One writer a lane (its thread); any thread may read at any time. */
#ifndef BEACON_SERVER_STATS_H
#define BEACON_SERVER_STATS_H

#include <stdatomic.h>
#include <stdint.h>

/* X(NAME, outcome, type, reason, help). Names stay for good: they are the labels of /metrics.
 * outcome: what happened ("taken": it was for us, and wants no answer); type: of the message;
 * reason: "" for the plain good case. The mesh counts those from GOSSIP_TAKEN to SYNC_LIMITED by
 * adding: they stand in the order of enum gossip_verdict in gossip/gossip.h. */
#define VERDICTS(X)                                                                                \
    X(DISCOVER_NEW, "answered", "discover", "registered", "new node stored")                       \
    X(DISCOVER_REFRESHED, "answered", "discover", "refreshed", "same endpoint as before")          \
    X(DISCOVER_MOVED, "answered", "discover", "moved", "endpoint of a stored node changed")        \
    X(DISCOVER_ID_ZERO, "answered", "discover", "id_zero", "id 0 is answered and never stored")    \
    X(DISCOVER_CONFLICT, "answered", "discover", "conflict",                                       \
      "another address holds this id and was heard of recently; not stored")                       \
    X(DISCOVER_ADDRESS_DENIED, "answered", "discover", "address_denied",                           \
      "address policy forbids sending to this source; not stored")                                 \
    X(DISCOVER_QUOTA, "answered", "discover", "quota", "its prefix holds all nodes it may")        \
    X(DISCOVER_NURSERY, "answered", "discover", "nursery",                                         \
      "table is filling: a new id must come twice")                                                \
    X(DISCOVER_FULL, "answered", "discover", "table_full", "no room and nothing to evict")         \
    X(DISCOVER_LIMITED, "dropped", "discover", "reply_limited",                                    \
      "reply budget of the source's prefix is spent; registration still counted")                  \
    X(DISCOVER_TOTAL_LIMITED, "dropped", "discover", "total_limited",                              \
      "the shard's budget of all answers is spent; registration still counted")                    \
    X(PUNCH_COMMANDED, "answered", "punch", "commanded",                                           \
      "each side was told where the other hears UDP")                                              \
    X(PUNCH_UNKNOWN_TARGET, "dropped", "punch", "unknown_target", "target is not registered")      \
    X(PUNCH_NOT_STORED, "dropped", "punch", "requester_refused",                                   \
      "requester could not be registered at its source")                                           \
    X(PUNCH_LIMITED, "dropped", "punch", "rate_limited", "punch budget of the source is spent")    \
    X(PUNCH_PAIR_LIMITED, "dropped", "punch", "pair_limited", "punch budget of the pair is spent") \
    X(PUNCH_VICTIM_LIMITED, "dropped", "punch", "victim_limited",                                  \
      "an address was named in too many commands")                                                 \
    X(PUNCH_GRANT_MISSING, "dropped", "punch", "grant_missing", "grants are required, none came")  \
    X(PUNCH_GRANT_BAD, "dropped", "punch", "grant_bad", "expired, too long-lived or badly signed") \
    X(PUNCH_GRANT_NO_KEY, "dropped", "punch", "grant_no_key", "no key of the target is known")     \
    X(PUNCH_GRANT_REPLAYED, "dropped", "punch", "grant_replayed",                                  \
      "grant was used from another address before")                                                \
    X(PUNCH_NO_ENDPOINT, "dropped", "punch", "no_endpoint", "neither side is reached by UDP")      \
    X(PUNCH_TOTAL_LIMITED, "dropped", "punch", "total_limited",                                    \
      "the shard's budget of all punches is spent")                                                \
    X(PUNCH_VERIFY_LIMITED, "dropped", "punch", "verify_limited", "signature budget is spent")     \
    X(RELAY_FORWARDED, "forwarded", "relay", "", "sent on; sender id matches its registration")    \
    X(RELAY_FORWARDED_UNPROVEN, "forwarded", "relay", "sender_mismatch",                           \
      "sent on; sender id is not registered at this source")                                       \
    X(RELAY_NO_ROUTE, "dropped", "relay", "no_route", "destination is not registered")             \
    X(RELAY_LIMITED, "dropped", "relay", "rate_limited", "relay budget of the source is spent")    \
    X(RELAY_IP_LIMITED, "dropped", "relay", "address_rate_limited",                                \
      "relay budget of the source address (IPv6: /64) is spent")                                   \
    X(RELAY_STREAM_FULL, "dropped", "relay", "stream_full",                                        \
      "destination is a WebSocket session and its queue is full")                                  \
    X(RELAY_SENDER_MISMATCH, "dropped", "relay", "sender_mismatch",                                \
      "strict mode: sender id is not registered at this source")                                   \
    X(RELAY_TO_BEACON, "forwarded", "relay", "to_beacon",                                          \
      "sent unchanged to the beacon that has the destination")                                     \
    X(RELAY_FROM_BEACON, "forwarded", "relay", "from_beacon",                                      \
      "came from another beacon; sent on to a node that is registered here")                       \
    X(RELAY_SECOND_HOP, "dropped", "relay", "second_hop",                                          \
      "came from a beacon, and another beacon has the destination")                                \
    X(RELAY_PEER_LIMITED, "dropped", "relay", "beacon_rate_limited",                               \
      "relay budget of the beacon that it came from is spent")                                     \
    X(STUN_ANSWERED, "answered", "stun", "", "Binding success sent")                               \
    X(STUN_UNKNOWN_ATTRIBUTE, "answered", "stun", "unknown_attribute", "420 sent")                 \
    X(STUN_REPLY_LIMITED, "dropped", "stun", "reply_limited",                                      \
      "reply budget of the source's prefix is spent")                                              \
    X(STUN_TOTAL_LIMITED, "dropped", "stun", "total_limited",                                      \
      "the shard's budget of all answers is spent")                                                \
    X(STUN_DROPPED_INDICATION, "dropped", "stun", "indication", "indications get no answer")       \
    X(STUN_DROPPED_RESPONSE, "dropped", "stun", "response", "responses get no answer")             \
    X(STUN_DROPPED_FINGERPRINT, "dropped", "stun", "bad_fingerprint", "FINGERPRINT is wrong")      \
    X(STUN_DROPPED_MALFORMED, "dropped", "stun", "malformed", "not a STUN message")                \
    X(STUN_DROPPED_REFLECTED, "dropped", "stun", "reflected",                                      \
      "STUN response that would read as a Discover")                                               \
    X(GOSSIP_TAKEN, "taken", "gossip", "", "sealed gossip of another beacon")                      \
    X(GOSSIP_CHALLENGED, "answered", "gossip", "challenged",                                       \
      "from a beacon that has started anew: it was asked to prove that it is alive now")           \
    X(GOSSIP_MALFORMED, "dropped", "gossip", "malformed", "not a frame, or a body of wrong shape") \
    X(GOSSIP_UNKNOWN_KEY, "dropped", "gossip", "unknown_key", "sealed with none of our keys")      \
    X(GOSSIP_FORGED, "dropped", "gossip", "forged", "does not open with the key that it names")    \
    X(GOSSIP_REPLAYED, "dropped", "gossip", "replayed", "came before, or is older than it may be") \
    X(GOSSIP_NOT_OURS, "dropped", "gossip", "not_ours", "for another beacon")                      \
    X(GOSSIP_OWN_ID, "dropped", "gossip", "own_id", "another beacon uses the id of this one")      \
    X(GOSSIP_LIMITED, "dropped", "gossip", "rate_limited",                                         \
      "budget of the other beacon, or that of bad frames, is spent")                               \
    X(SYNC_TAKEN, "taken", "sync", "", "nodes of an original beacon")                              \
    X(SYNC_HELD, "taken", "sync", "held",                                                          \
      "says something surprising: counts when the next one says the same")                         \
    X(SYNC_STRANGER, "dropped", "sync", "stranger",                                                \
      "not from a peer that is named, or from one whose gossip is sealed")                         \
    X(SYNC_SHORT, "dropped", "sync", "malformed", "shorter than what it says it holds")            \
    X(SYNC_LIMITED, "dropped", "sync", "rate_limited",                                             \
      "too many from this source, or too many sources")                                            \
    X(GOSSIP_QUEUE_FULL, "dropped", "gossip", "queue_full",                                        \
      "gossip that a shard received; the queue to the mesh's thread is full")                      \
    X(GOSSIP_UNSUPPORTED, "dropped", "gossip", "unsupported", "no other beacons are configured")   \
    X(SYNC_UNSUPPORTED, "dropped", "sync", "unsupported", "no other beacons are configured")       \
    X(DROPPED_FOR_NODES, "dropped", "other", "for_nodes", "a type that only beacons send")         \
    X(DROPPED_UNKNOWN_TYPE, "dropped", "other", "unknown_type", "first byte of no protocol here")  \
    X(DROPPED_SHORT, "dropped", "other", "malformed", "too short for its type")                    \
    X(DROPPED_EMPTY, "dropped", "other", "empty", "datagram without a byte")                       \
    X(DROPPED_BAD_SOURCE, "dropped", "other", "bad_source",                                        \
      "source port 0, multicast, unspecified or our own address")                                  \
    X(DROPPED_TRUNCATED, "dropped", "other", "truncated", "did not fit the receive buffer")        \
    X(DROPPED_FORGED_ID, "dropped", "other", "forged_id",                                          \
      "frame of a WebSocket session that speaks for another node")                                 \
    X(DROPPED_SESSION_LIMITED, "dropped", "other", "session_limited",                              \
      "a WebSocket session's budget of questions is spent")                                        \
    X(DROPPED_MAILBOX_FULL, "dropped", "other", "queue_full", "mailbox of the owner is full")

enum verdict {
#define X(name, outcome, type, reason, help) VERDICT_##name,
    VERDICTS(X)
#undef X
        VERDICT_COUNT,
    VERDICT_PASSED = VERDICT_COUNT, /* handed to another thread's lane, which gives the verdict */
};

struct verdict_row {
    const char *outcome, *type, *reason, *help;
};
extern const struct verdict_row verdict_rows[VERDICT_COUNT];

/* A counter with one writer: a plain add for its lane, never torn for a reader. */
typedef _Atomic uint64_t counter;

static inline void count_add(counter *c, uint64_t n)
{
    uint64_t value = atomic_load_explicit(c, memory_order_relaxed); /* ours alone to change */
    atomic_store_explicit(c, value + n, memory_order_relaxed);      /* publishes nothing else */
}

static inline void count_set(counter *c, uint64_t value)
{
    atomic_store_explicit(c, value, memory_order_relaxed);
}

static inline uint64_t count_read(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* X(field, metric, help): figures of the I/O port and the table, a row each in /metrics. */
#define LANE_COUNTERS(X)                                                                           \
    X(received, "beacon_received_packets_total", "Datagrams received")                             \
    X(received_bytes, "beacon_received_bytes_total", "UDP payload bytes received")                 \
    X(sent, "beacon_sent_packets_total", "Datagrams handed to the kernel for sending")             \
    X(sent_bytes, "beacon_sent_bytes_total", "UDP payload bytes handed to the kernel")             \
    X(send_errors, "beacon_send_errors_total", "Datagrams that the kernel refused to send")        \
    X(receive_errors, "beacon_receive_errors_total", "Receive calls that failed")                  \
    X(kernel_drops, "beacon_kernel_dropped_packets_total",                                         \
      "Datagrams the kernel dropped because the receive buffer was full")                          \
    X(batches, "beacon_io_batches_total", "Wake-ups that brought at least one datagram")           \
    X(arrivals, "beacon_io_arrivals_total", "Receive buffers filled (one may hold a GRO batch)")   \
    X(send_messages, "beacon_io_send_messages_total", "Send messages (one may hold a GSO batch)")  \
    X(rearms, "beacon_io_rearms_total", "Times a multishot receive was armed again")               \
    X(mail_passed, "beacon_mail_passed_total", "Datagrams handed to the shard that owns the node") \
    X(mail_taken, "beacon_mail_taken_total", "Letters taken from the mailbox")                     \
    X(notified, "beacon_notify_sent_total", "Notify messages sent")                                \
    X(notify_skipped, "beacon_notify_skipped_total",                                               \
      "Notify calls not sent: node gone or notified within its limit")                             \
    X(handoff_full, "beacon_handoff_full_total",                                                   \
      "Answers for WebSocket sessions dropped because the queue to the edge was full")             \
    X(sessions_stored, "beacon_session_registrations_total",                                       \
      "Nodes registered or refreshed by their WebSocket session")                                  \
    X(sessions_refused, "beacon_session_registrations_refused_total",                              \
      "Sessions whose node could not be registered: held by another, quota or table full")         \
    X(routes_set, "beacon_mesh_routes_set_total", "Nodes of other beacons written to the table")   \
    X(routes_refused, "beacon_mesh_routes_refused_total",                                          \
      "Nodes of other beacons for which the table has no room")                                    \
    X(expired, "beacon_nodes_expired_total", "Nodes removed because they fell silent")             \
    X(evicted, "beacon_nodes_evicted_total", "Nodes removed to make room")                         \
    X(ticks, "beacon_shard_ticks_total", "Turns of the shard's loop, idle ones included")

enum { STATS_BUCKETS = 12 };

/* A histogram with powers of two (batch) or of about 3 (time) as bounds. */
struct histogram {
    counter bucket[STATS_BUCKETS + 1]; /* the last: above all bounds */
    counter sum;
};

extern const uint64_t batch_bounds[STATS_BUCKETS];   /* datagrams */
extern const uint64_t seconds_bounds[STATS_BUCKETS]; /* nanoseconds */

void histogram_add(struct histogram *h, const uint64_t bounds[static STATS_BUCKETS],
                   uint64_t value);

struct lane_stats {
    counter verdict[VERDICT_COUNT];
#define X(field, metric, help) counter field;
    LANE_COUNTERS(X)
#undef X
    counter nodes_v4, nodes_v6, nodes_stream; /* gauges */
    counter nodes_beacon;                     /* gauge: that other beacons have */
    counter tick_ns;                          /* when the loop last turned: the watchdog reads it */
    struct histogram batch_packets;           /* datagrams per wake-up */
    struct histogram batch_seconds;           /* from wake-up to the last send of its batch */
};

#endif
