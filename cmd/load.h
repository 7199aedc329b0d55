/* load - the configuration from all its sources: defaults, file, environment, flags. */
#ifndef BEACON_CMD_LOAD_H
#define BEACON_CMD_LOAD_H

#include "server/config.h"

enum { EXIT_USAGE = 2 };

/* Returns 0, or the exit code with `error` filled: EXIT_USAGE or EX_CONFIG. */
int config_load(struct config *c, int argc, char **argv, struct config_error *error);

#endif
