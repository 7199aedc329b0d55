/* service - the life of a running beacon: opens everything, waits for signals, drains, closes. */
#ifndef BEACON_CMD_SERVICE_H
#define BEACON_CMD_SERVICE_H

#include "server/config.h"

/* Takes `config`. Returns the exit code; what is wrong has been logged. */
int service_run(struct config *config, int argc, char **argv);

#endif
