/* version - what this build is. */
#ifndef BEACON_CMD_VERSION_H
#define BEACON_CMD_VERSION_H

extern const char beacon_version[], beacon_revision[], beacon_compiler[];

#endif
