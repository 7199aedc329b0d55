#include <assert.h>
#include <stdlib.h>

#include "wss/keys_table.h"

#define KEY_ROW_NONE UINT32_MAX

struct key_table {
    struct siphash_key secret;
    unsigned rows, count;
    uint32_t oldest, newest, free;
    uint32_t chains; /* a power of two, at least as many as rows */
    uint32_t *first; /* of each chain */
    struct key_row *row;
};

struct key_table *key_table_new(unsigned rows, struct siphash_key secret)
{
    struct key_table *t = calloc(1, sizeof *t);
    assert(rows > 0 && rows <= 1u << 30);
    if (!t)
        return NULL;
    *t = (struct key_table){.secret = secret, .rows = rows, .chains = 1};
    t->oldest = t->newest = KEY_ROW_NONE;
    while (t->chains < rows)
        t->chains *= 2;
    t->first = malloc(t->chains * sizeof *t->first);
    t->row = calloc(rows, sizeof *t->row);
    if (!t->first || !t->row) {
        key_table_free(t);
        return NULL;
    }
    for (uint32_t i = 0; i < t->chains; i++)
        t->first[i] = KEY_ROW_NONE;
    for (uint32_t i = 0; i < rows; i++)
        t->row[i].next = i + 1 < rows ? i + 1 : KEY_ROW_NONE;
    return t;
}

void key_table_free(struct key_table *t)
{
    if (!t)
        return;
    free(t->first);
    free(t->row);
    free(t);
}

static uint32_t *chain_of(const struct key_table *t, uint32_t node_id)
{
    return &t->first[siphash_u32(&t->secret, node_id) & (t->chains - 1)];
}

static void age_unlink(struct key_table *t, struct key_row *row)
{
    *(row->older == KEY_ROW_NONE ? &t->oldest : &t->row[row->older].newer) = row->newer;
    *(row->newer == KEY_ROW_NONE ? &t->newest : &t->row[row->newer].older) = row->older;
}

static void age_append(struct key_table *t, struct key_row *row)
{
    uint32_t place = (uint32_t)(row - t->row);
    row->older = t->newest;
    row->newer = KEY_ROW_NONE;
    *(t->newest == KEY_ROW_NONE ? &t->oldest : &t->row[t->newest].newer) = place;
    t->newest = place;
}

struct key_row *key_table_find(const struct key_table *t, uint32_t node_id)
{
    uint32_t place = *chain_of(t, node_id);
    while (place != KEY_ROW_NONE && t->row[place].node_id != node_id)
        place = t->row[place].next;
    return place == KEY_ROW_NONE ? NULL : &t->row[place];
}

static struct key_row *row_take(struct key_table *t, uint32_t node_id)
{
    uint32_t place = t->free, *chain = chain_of(t, node_id);
    if (place == KEY_ROW_NONE)
        return NULL;
    struct key_row *row = &t->row[place];
    t->free = row->next;
    *row = (struct key_row){.node_id = node_id, .next = *chain};
    *chain = place;
    t->count++;
    return row;
}

struct key_row *key_table_put(struct key_table *t, uint32_t node_id, uint64_t now_ns)
{
    struct key_row *row = key_table_find(t, node_id);
    if (row)
        age_unlink(t, row);
    else
        row = row_take(t, node_id);
    if (!row)
        return NULL;
    row->put_ns = now_ns;
    age_append(t, row);
    return row;
}

void key_table_remove(struct key_table *t, struct key_row *row)
{
    uint32_t place = (uint32_t)(row - t->row), *link = chain_of(t, row->node_id);
    while (*link != place) {
        assert(*link != KEY_ROW_NONE);
        link = &t->row[*link].next;
    }
    *link = row->next;
    age_unlink(t, row);
    row->next = t->free;
    t->free = place;
    t->count--;
}

struct key_row *key_table_oldest(const struct key_table *t)
{
    return t->oldest == KEY_ROW_NONE ? NULL : &t->row[t->oldest];
}

unsigned key_table_count(const struct key_table *t)
{
    return t->count;
}

bool key_table_is_full(const struct key_table *t)
{
    return t->count == t->rows;
}
