/* page - the status page of the admin listener: wss/status.html as it was when this was built. */
#ifndef BEACON_WSS_PAGE_H
#define BEACON_WSS_PAGE_H

#include <stddef.h>

extern const char status_page[]; /* a zero follows, which status_page_len does not count */
extern const size_t status_page_len;

#endif
