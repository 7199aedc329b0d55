/* token - where beaconctl has the admin token from. */
#ifndef BEACON_CMD_TOKEN_H
#define BEACON_CMD_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

enum { TOKEN_MAX = 1024 };

/* The first line of `file` without the blanks at its end; without a file $BEACON_ADMIN_TOKEN, or
 * the first line of the file that $BEACON_ADMIN_TOKEN_FILE names, as the beacon has them; without
 * all three "". False: `error` says what is wrong. */
bool token_take(char ret[static TOKEN_MAX], const char *file, char *error, size_t size);

#endif
