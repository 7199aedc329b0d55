#include "wss/mesh_view.h"

#include <stdio.h>
#include <string.h>

const char *mesh_state_text(enum mesh_view_state state)
{
    static const char *const text[MESH_PEER_STATES] = {
        [MESH_PEER_ALIVE] = "alive", [MESH_PEER_SUSPECT] = "suspect",
        [MESH_PEER_DEAD] = "dead",   [MESH_PEER_LEFT] = "left",
        [MESH_PEER_PILOT] = "pilot", [MESH_PEER_SILENT] = "silent"};
    return text[state];
}

void mesh_totals(struct mesh_view *v, struct mesh_view_totals *ret)
{
    *ret = (struct mesh_view_totals){.id = 0};
    if (!v)
        return;
    pthread_mutex_lock(&v->lock);
    *ret = v->totals;
    pthread_mutex_unlock(&v->lock);
}

unsigned mesh_successors(struct mesh_view *v, struct endpoint ret[static MESH_VIEW_SUCCESSORS_MAX])
{
    if (!v)
        return 0;
    pthread_mutex_lock(&v->lock);
    unsigned count = v->successor_count;
    memcpy(ret, v->successor, count * sizeof *ret);
    pthread_mutex_unlock(&v->lock);
    return count;
}

void mesh_farewell(struct mesh_view *v, char ret[static MESH_FAREWELL_MAX])
{
    struct endpoint to[MESH_VIEW_SUCCESSORS_MAX];
    unsigned count = mesh_successors(v, to);
    size_t len = (size_t)snprintf(ret, MESH_FAREWELL_MAX, "beacon shutting down");
    for (unsigned i = 0, named = 0; i < count; i++) {
        char text[ENDPOINT_TEXT_MAX];
        const char *mark = named > 0 ? " " : "; try ";
        endpoint_format(&to[i], text);
        if (to[i].port == 0 || len + strlen(mark) + strlen(text) >= MESH_FAREWELL_MAX)
            continue; /* a shorter one may still fit */
        len += (size_t)snprintf(ret + len, MESH_FAREWELL_MAX - len, "%s%s", mark, text);
        named++;
    }
}
