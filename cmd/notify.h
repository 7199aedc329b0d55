/* notify - the service manager's notification socket (sd_notify), without its library. */
#ifndef BEACON_CMD_NOTIFY_H
#define BEACON_CMD_NOTIFY_H

#include <stdint.h>

/* Sends e.g. "READY=1" to $NOTIFY_SOCKET. Does nothing where there is none. */
void notify_send(const char *state);
/* RELOADING=1 with the time stamp that systemd 253 and later asks for. */
void notify_reloading(void);
/* $WATCHDOG_USEC when it is meant for this process, else 0. */
uint64_t notify_watchdog_us(void);

#endif
