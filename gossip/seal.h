/* seal - keys of the mesh: a ring of up to four, seals and opens frames, refuses replays.
 *
 * A frame's key is derived from the ring's key and the sender's id, the cipher is
 * XChaCha20-Poly1305 with the 28-byte header as associated data. Derived keys are not kept: a
 * derivation takes a fifth of what it takes to refuse a forged frame of full length (0.14 of 0.7
 * us), and a table of them would be filled by whoever makes up senders. Opening looks at the header
 * first and costs no cryptography for a key that is not there, and no decryption for a tag that is
 * wrong.
 *
 * Pure: randomness comes from a generator that is seeded once. libsodium must have been initialised
 * (sodium_init). Every function may be called from any thread; what it changes is its caller's. */
#ifndef BEACON_GOSSIP_SEAL_H
#define BEACON_GOSSIP_SEAL_H

#include "proto/gossipmsg.h"

enum {
    SEAL_KEYS_MAX = 4,
    SEAL_KEY_LEN = 32,
    SEAL_ERROR_MAX = 256,
    SEAL_SEED_LEN = 32,
    SEAL_TEXT_MAX = 4 * 56 + 1, /* a ring as seal_ring_write says it, with the NUL */
};

/* The keys file, a line a key: "<id 0..255> <use|accept> <32 bytes, base64>"; '#' begins a comment.
 * Exactly one key is in use: it seals. All of them open. No id and no key comes twice. To change
 * keys: add the new one with "accept" everywhere, then say "use" of it everywhere, then remove the
 * old one everywhere. */
struct seal_ring {
    unsigned count, in_use; /* index of the key that seals */
    struct {
        uint8_t id;
        uint8_t key[SEAL_KEY_LEN];
    } of[SEAL_KEYS_MAX];
};
/* False: `error` says "PATH:LINE: what is wrong", and never shows a key. */
bool seal_ring_read(struct seal_ring *ret, const char *path, const char *text, size_t len,
                    char error[static SEAL_ERROR_MAX]);
/* The text of a ring, as seal_ring_read takes it, NUL-ended. Returns the length without the NUL,
 * 0: does not fit; SEAL_TEXT_MAX always does. */
size_t seal_ring_write(const struct seal_ring *ring, char *text, size_t room);

/* Random bytes out of a seed; all zero is no seed. Each call is a keystream of its own, so nothing
 * repeats while the struct is not copied. */
struct seal_random {
    uint8_t seed[SEAL_SEED_LEN];
    uint64_t counter;
};
void seal_random(struct seal_random *r, void *bytes, size_t len);

/* Writes the whole frame: header, nonce, sealed body of at most GOSSIP_BODY_MAX bytes, which lies
 * elsewhere. `head->key_id` is filled in from the ring. Returns the frame's length. */
size_t seal_frame(const struct seal_ring *ring, struct seal_random *random,
                  struct gossip_head *head, const uint8_t *body, size_t len,
                  uint8_t frame[static GOSSIP_FRAME_MAX]);

enum seal_opened { SEAL_OK, SEAL_MALFORMED, SEAL_UNKNOWN_KEY, SEAL_FORGED };
/* Unless SEAL_OK, `ret_body` holds nothing of use and the other results are untouched. A ring
 * without keys knows none. */
enum seal_opened seal_open(const struct seal_ring *ring, const uint8_t *frame, size_t len,
                           struct gossip_head *ret_head, uint8_t ret_body[static GOSSIP_BODY_MAX],
                           size_t *ret_len);

/* Sequence numbers seen of one (sender, boot): RFC 6479's sliding window. All zero is one that has
 * seen nothing. Call only for what opened. False: seen before, or older than the SEAL_WINDOW latest
 * up to the newest. As in the RFC (2.1) there is one word more than the window needs: moving on
 * clears whole words, and the word of the newest is then only partly in use. */
enum { SEAL_WINDOW = 1024, SEAL_WINDOW_WORDS = SEAL_WINDOW / 64 + 1 };
struct seal_window {
    uint64_t newest;
    uint64_t bits[SEAL_WINDOW_WORDS];
};
bool seal_window_take(struct seal_window *w, uint64_t sequence);

/* The challenge that (sender, boot) must echo before its frames count, and whether `echo` is one of
 * this period or the one before. Stateless: made of `secret`, and so of no use to another beacon.
 * Periods are SEAL_CHALLENGE_S long, so a challenge holds for one to two of them. */
enum { SEAL_CHALLENGE_S = 32 };
void seal_challenge(const uint8_t secret[static 16], uint32_t sender, uint64_t boot,
                    uint64_t now_ns, uint8_t ret[static GOSSIP_CHALLENGE_LEN]);
bool seal_challenge_holds(const uint8_t secret[static 16], uint32_t sender, uint64_t boot,
                          uint64_t now_ns, const uint8_t echo[static GOSSIP_CHALLENGE_LEN]);

#endif
