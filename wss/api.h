/* api - the admin listener: status, nodes, talkers, sessions, events, commands, the status page.
 *
 *   GET  /                    the status page, one self-contained HTML file
 *   GET  /v1/status           totals, state, certificates, build
 *   GET  /v1/nodes?limit=&after=   registered nodes, a page at a time;  GET /v1/nodes/ID  one
 *   GET  /v1/talkers          who relays most, estimated over the last 10 s
 *   GET  /v1/sessions?limit=&after=  WebSocket sessions
 *   GET  /v1/peers            other beacons, ourselves first
 *   GET  /v1/events           server-sent events: "status" each second, "event" as things happen
 *   POST /v1/drain {"on":true}, /v1/reload {}, /v1/log-level {"level":"debug"},
 *        /v1/notify {"node_id":N}
 *   GET  /healthz /livez /readyz /metrics   as on their own listeners
 *
 * Whoever reaches the listener may do all this; beyond this host a bearer token is needed. Since
 * browsers reach loopback too, and by ssh a unix socket, a request without a token must name the
 * listener by an IP address or localhost in its Host field, an Origin must be the same, and
 * commands must be JSON (no form can send that). Lists come in pages: a page names the next one in
 * "next", opaque and to be given as `after`, null at the end; a page of nodes may be short or empty
 * before the end. Refusals are {"error":TEXT}.
 *
 * A reload is only asked for: 202 and its "sequence"; it is over, well or not, when
 * reload.sequence of the status has reached that. The edge's thread. */
#ifndef BEACON_WSS_API_H
#define BEACON_WSS_API_H

#include "wss/admin.h"
#include "wss/bridge.h"
#include "wss/events.h"
#include "wss/sse.h"

enum {
    API_PAGE_DEFAULT = 100,
    API_PAGE_MAX = 1000,     /* rows of one answer */
    API_ROWS_A_TURN = 65536, /* of the node table, looked at for one answer: under 1 ms */
    API_TALKERS_MAX = 20,
    API_STREAMS_MAX = 2048,
    API_FIELDS_MAX = 640,
};

/* What the main thread does when asked. Called on the edge's thread; must only leave a note. */
struct api_commands {
    void *arg;
    void (*reload)(void *arg);
    void (*drain)(void *arg, bool on);
    void (*log_level)(void *arg, enum log_level level);
    void (*wake)(void *arg, unsigned lane);
};

struct api {
    /* Fixed before the edge starts. */
    struct admin *admin;
    struct bridge *bridge; /* NULL: no WSS */
    struct events *events;
    const char *token; /* NULL or "": none is asked for */
    struct api_commands commands;
    /* The edge's thread; all zero at first. */
    struct sse_streams streams;
    uint64_t status_at_ns;   /* when the streams last got one */
    uint64_t event_sequence; /* the newest that they got */
    char page_fields[API_FIELDS_MAX];
};

edge_handler api_http; /* arg is the struct api */
/* Each turn of the edge: feeds the event streams. Returns when it wants to be called again. */
uint64_t api_turn(struct api *a, const struct conn_turn *turn);

#endif
