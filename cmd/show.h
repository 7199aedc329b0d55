/* show - the admin interface's JSON as text for people. What a beacon says is not believed: members
 * may be missing, and control characters never reach the terminal. */
#ifndef BEACON_CMD_SHOW_H
#define BEACON_CMD_SHOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A member, or "" and 0 when it is not there or of another type. */
const char *show_text(const json_t *object, const char *name);
int64_t show_number(const json_t *object, const char *name);

void show_status(FILE *out, const json_t *status);
void show_peers(FILE *out, const json_t *peers);
void show_talkers(FILE *out, const json_t *talkers);
void show_node(FILE *out, const json_t *node);
/* Rows of a table, its head first. */
void show_nodes_head(FILE *out);
void show_nodes_row(FILE *out, const json_t *node);
void show_sessions_head(FILE *out);
void show_sessions_row(FILE *out, const json_t *session);
void show_peers_head(FILE *out);
void show_peers_row(FILE *out, const json_t *peer);

/* Prints `text` with '?' for what a terminal could take for a command. */
void show_clean(FILE *out, const char *text);

#endif
