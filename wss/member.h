/* member - one WebSocket connection of the bridge: authenticates, then its frames are decided.
 *
 * Private to wss/bridge.c and wss/member.c, which share the bridge. The edge's thread only. */
#ifndef BEACON_WSS_MEMBER_H
#define BEACON_WSS_MEMBER_H

#include "proto/siphash.h"
#include "wss/auth.h"
#include "wss/bridge.h"
#include "wss/websocket.h"

#define NS_PER_S UINT64_C(1000000000)

enum member_state {
    MEMBER_CHALLENGED, /* the reply is awaited */
    MEMBER_KEY_ASKED,  /* replied; the registry is asked for its key */
    MEMBER_OPEN,       /* authenticated: a session */
    MEMBER_CLOSING,    /* a close frame is on its way; nothing it says counts any more */
};

/* What is needed until a member is authenticated. */
struct proof {
    struct auth_challenge challenge;
    struct auth_reply reply;
};

/* One WebSocket connection. */
struct member {
    struct session session; /* node_id is 0 until MEMBER_OPEN */
    struct bridge *bridge;
    struct conn *conn;
    struct websocket *websocket;
    struct proof *proof;          /* NULL when MEMBER_OPEN */
    struct member *next;          /* in its chain of the map */
    struct member *older, *newer; /* among those that are not authenticated yet */
    unsigned place;
    enum member_state state;
    unsigned auth_version;
    bool tls, pinged, by_file; /* by_file: its key stands in the keys file */
    uint64_t opened_ns;
    uint64_t heard_ns; /* the last frame, of any kind */
    uint64_t here_ns;  /* when the owner of the id is to be told (again) that it is here */
    uint64_t leave_ns; /* told to go by a drain; 0: may stay */
    uint64_t frames_in, frames_out;
};

/* A place for each connection, so that a list of them can be read a part at a time. */
struct place {
    struct member *member; /* NULL: free */
    unsigned next_free;
};

struct bridge {
    struct bridge_config config;
    struct keys *keys;
    struct siphash_key key;
    struct member **map; /* node id -> session, chains */
    unsigned map_mask;
    struct place *places;
    unsigned first_free, members;
    struct outbox out; /* of the edge's lane */
    struct websocket_memory parts;
    uint64_t keys_version;          /* of the file, when sessions were last held against it */
    struct member *oldest, *newest; /* of those that are not authenticated yet */
    unsigned stale_left; /* this turn may send so many letters about rows without a session */
    bool drains;         /* what the edge's thread knows of the two below */
    char farewell[MESH_FAREWELL_MAX]; /* for those that a drain sends away, as of its begin */
    struct bridge_stats stats;

    _Atomic bool drain_wanted;
    _Atomic unsigned drain_spread_ms;
};

/* For edge_response.protocol, with a struct member as state. */
extern const struct edge_protocol member_protocol;

/* A connection that is about to be one. NULL: no memory. */
struct member *member_new(struct bridge *b, const struct edge_request *q, unsigned version);
/* The registry has said something about the id that it claims. */
void member_key_arrived(struct member *p, const struct conn_turn *turn,
                        const struct keys_answer *answer);
void member_say(struct member *p, const struct conn_turn *turn, enum websocket_opcode opcode,
                const void *bytes, size_t len);
/* The keys file is another: a session whose key it had and has no more is over, and so is one whose
 * id it gives to another key. */
void member_keys_changed(struct member *p, const struct conn_turn *turn);
/* Must leave at that time, 0: may stay. */
void member_end(struct member *p, uint64_t at_ns);

/* --- of bridge.c, for members --- */

struct member *bridge_member(const struct bridge *b, uint32_t node_id);
void bridge_map_add(struct bridge *b, struct member *p);
void bridge_map_remove(struct bridge *b, struct member *p);
/* Joins and leaves those that are not authenticated yet. */
void bridge_waiting_add(struct bridge *b, struct member *p);
void bridge_waiting_remove(struct bridge *b, struct member *p);
void bridge_place_take(struct bridge *b, struct member *p);
void bridge_place_give(struct bridge *b, unsigned place);
/* What the edge's lane has for UDP, for other lanes, for sessions: sent now; or only the second. */
void bridge_flush(struct bridge *b, const struct conn_turn *turn);
void bridge_wake(struct bridge *b);
/* The Host field as it came. False: none, or too long. */
bool bridge_host(const struct http_request *q, char host[static AUTH_HOST_MAX + 1]);

#endif
