/* words - lines of words, as key files are written: separated by blanks, '#' begins a comment.
 *
 * Pure; nothing is copied, a token points into the text. */
#ifndef BEACON_PROTO_WORDS_H
#define BEACON_PROTO_WORDS_H

#include <stdbool.h>
#include <stddef.h>

struct token {
    const char *at;
    size_t len;
};

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The next word of the line, which is cut off it. Length 0: there is none. */
static inline struct token next_token(struct token *line)
{
    while (line->len > 0 && is_blank(*line->at))
        line->at++, line->len--;
    struct token t = {.at = line->at};
    while (line->len > 0 && !is_blank(*line->at))
        line->at++, line->len--;
    t.len = (size_t)(line->at - t.at);
    return t;
}

/* Nothing but a comment comes from here on. */
static inline bool is_end(struct token t)
{
    return t.len == 0 || t.at[0] == '#';
}

#endif
