/* metrics - Prometheus text (version 0.0.4) of everything that is counted. */
#ifndef BEACON_WSS_METRICS_H
#define BEACON_WSS_METRICS_H

#include <stdio.h>
#include "wss/admin.h"

/* Writes all series; each exists from the start with 0. Labels are
 * enums of ours, and the names of our certificates. Reads the
 * lanes' counters without stopping them: one scrape is not one moment. */
void metrics_write(FILE *out, struct admin *a);
/* A part of it: the mesh. `routes`: nodes of other beacons in the table. */
void metrics_write_mesh(FILE *out, const struct admin *a, uint64_t routes);

#endif
