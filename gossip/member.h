/* member - which beacons there are, and which of them are alive: SWIM with Lifeguard's awareness of
 * one's own slowness.
 *
 * Every MEMBER_PERIOD_NS some members are pinged, in a shuffled order that visits each once before
 * any twice: MEMBER_PINGS at a time, all of them while they are few. One that does not answer
 * within two round trips (MEMBER_WAIT_NS at least) is asked again, directly and through others;
 * after three tries, within a period, it is suspect, and everybody is told. Who suspects goes on
 * asking, often in the last two seconds. A suspect that hears of it raises its incarnation, which
 * refutes; else it is dead MEMBER_SUSPECT_NS after the suspicion became known here. The dead are
 * still asked, one a period in turn, so that the halves of a split mesh find each other.
 *
 * A beacon whose own clockwork turned late, or that misses many answers at once, doubts itself: it
 * waits longer before it accuses; what it slept through lengthens its waits and sentences by as
 * much; and awake again it raises its incarnation and asks many at once, which tells that it lives.
 *
 * An order of facts about one member: later boot wins, then higher incarnation, then
 * left > dead > suspect > alive. A sign of life (a direct, fresh frame, or a helper's word) is
 * better than any hearsay: it ends a suspicion or death here at once. As only the member can
 * refute what others believe, it is told of it in every frame of rumours until it does. A
 * suspicion within a period of a sign of life, and a death within MEMBER_SUSPECT_NS, are not
 * believed, only passed on to the member itself. Hearsay of the end of one who is not known here is
 * no news: else the last traces of the dead would go round for ever.
 *
 * Pure: time and randomness are arguments. One thread. Index 0 is ourselves; an index stays with
 * its id until the member has been dead or gone for MEMBER_KEEP_NS and is forgotten. It serves
 * another only after member_changes has reported it free, those that never served first. */
#ifndef BEACON_GOSSIP_MEMBER_H
#define BEACON_GOSSIP_MEMBER_H

#include "gossip/store.h"
#include "proto/gossipmsg.h"

enum {
    MEMBERS_MAX = STORE_MEMBERS_MAX,
    MEMBER_PINGS = 4,    /* a period, at most */
    MEMBER_HELPERS = 3,  /* are asked to ping one that did not answer */
    MEMBER_RUMOURS = 24, /* facts a frame of gossip about members carries at most */
    MEMBER_HEALTH_MAX = 8,
};
#define MEMBER_PERIOD_NS UINT64_C(1000000000)
#define MEMBER_WAIT_NS UINT64_C(300000000)
#define MEMBER_SUSPECT_NS UINT64_C(6000000000)
#define MEMBER_KEEP_NS UINT64_C(1800000000000)       /* dead ones are remembered so long */
#define MEMBER_KEEP_HEARSAY_NS UINT64_C(60000000000) /* ... which never spoke themselves */

struct member {
    struct member_fact fact; /* id 0: this index is not in use */
    uint64_t changed_ns;     /* state */
    uint64_t heard_ns;       /* the last fresh frame from itself, 0: never */
    uint64_t rtt_ns;         /* smoothed, 0: unknown */
};

struct members;
size_t members_size(void);
/* `seed` makes order and jitter. */
struct members *members_init(void *memory, uint32_t self, uint64_t boot, uint64_t seed);

unsigned members_count(const struct members *m);  /* indices below this may be in use */
unsigned members_usable(const struct members *m); /* alive or suspect, without ourselves */
/* Below members_count. */
const struct member *member_at(const struct members *m, unsigned index);
int member_find(const struct members *m, uint32_t id); /* index or -1 */

/* --- news: all return true when it changed what is known --- */

/* What somebody says. About ourselves it is refuted (incarnation raised), or, with a boot later
 * than ours, `*ret_reboot` gets the boot that we must take: theirs + 1 (else 0), for
 * member_reboot. False too when there is no room for a new one. An address is believed when none
 * is known, or with a later boot, or with a higher incarnation when the member itself has been
 * silent for MEMBER_SUSPECT_NS. */
bool member_told(struct members *m, const struct member_fact *fact, uint64_t now_ns,
                 uint64_t *ret_reboot);
/* A fresh authenticated frame came from it: it is alive, with this boot, there. Adds it when it is
 * new. A plain sign of life from who is known to live is no news. With an earlier boot than is
 * known, or the boot in which it left, it changes nothing, but the member is told (member_rumours)
 * so that it takes a later one. `*ret_index`: -1 when there is no room. */
bool member_heard(struct members *m, uint32_t id, uint64_t boot, const struct endpoint *at,
                  uint64_t now_ns, int *ret_index);
/* Its answer to a ping of ours, or, through a helper, of a probe. Any number may be given: what is
 * not of the last two rounds of questions to `subject` does nothing. For an answer that came
 * directly call member_heard too. */
void member_acked(struct members *m, uint64_t number, uint32_t subject, bool directly,
                  uint64_t now_ns);
/* We go: member_rumours gives the fact to everybody, each time. Nobody is asked any more. */
void member_leave(struct members *m, uint64_t now_ns);
/* A new boot of ourselves, later than before. */
void member_reboot(struct members *m, uint64_t boot);
/* Our own address as others see it or as it was configured. */
void member_self_at(struct members *m, const struct endpoint *at);

/* --- what to do --- */

struct member_ping {
    unsigned to;      /* index: who gets the frame */
    unsigned subject; /* whom it is about; == to: a PING, else a PROBE */
    uint64_t number;
};
/* What is due by now: pings and probes to send, suspicions and deaths that take place. Returns how
 * many pings (up to `max`; call again when it is max). */
unsigned member_tick(struct members *m, uint64_t now_ns, struct member_ping *ret, unsigned max);
/* The next time that member_tick has something to do. Calling it later than that counts as the
 * lateness of our own clockwork; calling it sooner does no harm. */
uint64_t member_next_ns(const struct members *m);
/* How late our own clockwork runs: the worst of the last seconds. And Lifeguard's local health, 0
 * (well) .. MEMBER_HEALTH_MAX. */
uint32_t member_lag_ms(const struct members *m);
unsigned member_health(const struct members *m);

/* We are asked to ping `subject` for `asker`, who calls the question `number`: gives the ping to
 * send, with a number of our own. False: no such members, or 256 such pings of the last two
 * seconds are unanswered. */
bool member_help(struct members *m, unsigned asker, uint64_t number, unsigned subject,
                 uint64_t now_ns, struct member_ping *ret);
/* Whether an ACK with this number answers such a ping; then whom to send an ACK with which number,
 * its subject as in the one that came. Once for each. (Numbers of our own questions are never
 * among them: try this first, then member_acked.) */
bool member_helped(struct members *m, uint64_t number, int *ret_asker, uint64_t *ret_number);

/* News that should be told, the least told first: each fact is given out ceil(3 * log2(n + 1))
 * times, of n usable members, then no more. Counts as told. Whoever `to` is held to be but alive
 * is told of itself first, every time. To be sent with every PING and PROBE. */
unsigned member_rumours(struct members *m, unsigned to, struct member_fact *ret, unsigned max);
/* Indices whose id, boot, state or address changed since the last call (and 0 when we refuted
 * something), for who keeps tables of them; returns how many. Call again when it is `max`. */
unsigned member_changes(struct members *m, unsigned *ret, unsigned max);

/* Those we exchange logs with: all, while there are at most MEMBER_FULL_MESH; else the ones at
 * distance 1, 2, 4, ... to both sides in the ring of all usable ones, ordered by a hash of their
 * id: so few hops reach everybody, and both ends choose each other. When we have left, those whom
 * we had, to be told. Returns how many. */
enum { MEMBER_FULL_MESH = 24, MEMBER_NEIGHBOURS_MAX = 24 };
unsigned member_neighbours(const struct members *m, unsigned ret[static MEMBER_NEIGHBOURS_MAX]);
/* One usable member at random, -1: none. */
int member_random(struct members *m);

/* Hash over the ids and boots of the living, suspects and ourselves included: equal where the same
 * is known of them. (The dead are not in it: they are forgotten at other times elsewhere.) */
uint64_t member_view(const struct members *m);

#endif
