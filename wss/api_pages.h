/* api_pages - the parts of the admin interface: JSON pages, event stream, status page. The edge's
 * thread. */
#ifndef BEACON_WSS_API_PAGES_H
#define BEACON_WSS_API_PAGES_H

#include <stdio.h>
#include "wss/api.h"

/* No page of ours may be framed, sniffed into a script or told of to others. */
#define API_SAFE_FIELDS                                                                            \
    "X-Content-Type-Options: nosniff\r\n"                                                          \
    "X-Frame-Options: DENY\r\n"                                                                    \
    "Referrer-Policy: no-referrer\r\n"

/* {"error":WHY}; `why` needs no escaping. */
void api_refuse(struct edge_response *r, int status, const char *why);

/* Each writes one JSON value and returns the status; for 400 and above `out` holds the reason as
 * plain text instead. */
typedef int api_page(FILE *out, struct api *a, const struct http_request *q);

api_page api_status, api_nodes, api_node, api_talkers, api_sessions, api_peers;

/* /v1/events. */
void api_events(struct api *a, const struct http_request *q, struct edge_response *r);
/* One record of the event stream. */
void api_event_json(FILE *out, const struct event *e);
/* "debug" and so on. */
const char *api_level_text(enum log_level level);
bool api_level_read(const char *text, enum log_level *ret);

#endif
