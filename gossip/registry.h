/* registry - what a beacon says to a Pilot registry and what it makes of the answers; and the merge
 * of all places that name other beacons. Pure.
 *
 * A cycle is one connection: beacon_register, its answer, beacon_list, its answer. Messages are a
 * 4-byte big-endian length and a JSON object. JSON is read with jansson, which takes memory for as
 * long as a call lasts. */
#ifndef BEACON_GOSSIP_REGISTRY_H
#define BEACON_GOSSIP_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REGISTRY_BEACONS_MAX = 256, /* of a list, more are cut off and counted */
    REGISTRY_HOST_MAX = 254,
    REGISTRY_ANSWER_MAX = 1 << 20,
    REGISTRY_MESSAGE_MAX = 2048,
    REGISTRY_ERROR_MAX = 256,
};

/* Both return the length with the frame's head, 0: does not fit. */
size_t registry_register_message(char *text, size_t room, uint32_t beacon_id, const char *addr,
                                 const char *admin_token); /* "" or NULL: none */
size_t registry_list_message(char *text, size_t room);

/* Length of the frame that `bytes` begin with, its head included; 0: not all of the head is there;
 * SIZE_MAX: longer than REGISTRY_ANSWER_MAX. */
size_t registry_frame_len(const uint8_t *bytes, size_t len);

/* One JSON body. False, with the reason: an "error", not a beacon_register_ok for this id, ... */
bool registry_registered(const char *json, size_t len, uint32_t beacon_id,
                         char error[static REGISTRY_ERROR_MAX]);

struct registry_beacon {
    uint32_t id;
    char host[REGISTRY_HOST_MAX]; /* name or address, without brackets */
    uint16_t port;
};
struct registry_list {
    unsigned count, skipped; /* entries that make no sense */
    struct registry_beacon of[REGISTRY_BEACONS_MAX];
};
/* False for anything that is not a whole beacon_list_ok: then the last good list stays. */
bool registry_listed(const char *json, size_t len, struct registry_list *ret,
                     char error[static REGISTRY_ERROR_MAX]);

/* One peer as text: "host:port", "[v6]:port", "host" (port 9001), each with "pilot:" before it for
 * an original beacon. False: it is none. */
struct peer_name {
    char host[REGISTRY_HOST_MAX];
    uint16_t port;
    bool is_pilot;
};
bool peer_name_read(const char *text, size_t len, struct peer_name *ret);
/* The same without "pilot:", and with another port for who names none; 0: then it must. */
bool peer_host_read(const char *text, size_t len, uint16_t port, struct peer_name *ret);
/* "host:port", IPv6 in brackets. Returns the length, 0: does not fit. */
enum { PEER_TEXT_MAX = REGISTRY_HOST_MAX + 8 };
size_t peer_name_write(char text[static PEER_TEXT_MAX], const char *host, uint16_t port);

/* A whole peers file or option: names separated by commas or lines, '#' begins a comment. Returns
 * how many, or -1 with "PATH:LINE: ..." in error; more than max are an error, too. */
int peer_names_read(const char *path, const char *text, size_t len, struct peer_name *ret,
                    unsigned max, char error[static REGISTRY_ERROR_MAX]);

#endif
