/* api_mesh - what the admin interface says of other beacons: a member of the status, a page, and
 * who has a node. The edge's thread. */
#ifndef BEACON_WSS_API_MESH_H
#define BEACON_WSS_API_MESH_H

#include "proto/json.h"
#include "server/route.h"
#include "wss/mesh_view.h"

/* Null when the port is 0. */
void mesh_write_endpoint(struct json *j, const char *name, const struct endpoint *e);
/* The member "mesh" of the status. `routes`: nodes of other beacons in the table. */
void mesh_write_status(struct json *j, struct mesh_view *v, uint64_t routes);
/* The member "beacon" of a node: the beacon that has it, null for one of ours. What a beacon that
 * is gone has had stays known for when it comes back; it is not "usable" then. */
void mesh_write_beacon(struct json *j, struct mesh_view *v, const struct route *r);

#endif
