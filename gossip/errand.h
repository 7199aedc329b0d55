/* errand - something that may take long, done by a thread of its own.
 *
 * Who sends it looks whether it is done, and may lose interest before that: what it works on
 * belongs to both until one of them lets go, then to the other. */
#ifndef BEACON_GOSSIP_ERRAND_H
#define BEACON_GOSSIP_ERRAND_H

#include <stdbool.h>

struct errand;
struct errand_kind {
    void (*run)(void *what);     /* on a thread of its own, with all signals blocked */
    void (*dispose)(void *what); /* on either thread, once */
    const char *name;            /* of the thread, at most 15 characters */
};

/* Takes `what`, also when it fails (NULL). The eventfd `wake`, which may be closed meanwhile, is
 * written to when it is done. */
struct errand *errand_start(const struct errand_kind *kind, void *what, int wake);
bool errand_is_done(const struct errand *e);
/* Only once it is done. */
void *errand_result(struct errand *e);
/* Done or not. */
void errand_drop(struct errand *e);

#endif
