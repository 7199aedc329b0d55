#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include "proto/gossipmsg.h"
#include "shard/steer.h"

/* Offset 0 is the first payload byte. A load past the end of the packet ends the program with 0, so
 * the length is asked first. The flow's addresses come from the network header: fixed offsets, for
 * with IP options or extension headers another word is hashed, which is as good for one flow. */
enum {
    NET = SKF_NET_OFF,
    V4_SOURCE = NET + 12,
    V4_PORTS = NET + 20, /* behind a header without options: source port first */
    V6_SOURCE = NET + 8,
    V6_PORTS = NET + 40,
    NO_BYTE = 256, /* equals no byte that is loaded */
};

#define SPREAD 0x9e3779b1u /* odd: a port's 16 bits reach the whole word */
#define LOAD(size, offset) BPF_STMT(BPF_LD | (size) | BPF_ABS, (uint32_t)(offset))
#define ALU(op, k) BPF_STMT(BPF_ALU | (op) | BPF_K, (k))
#define TO_X BPF_STMT(BPF_MISC | BPF_TAX, 0)
#define XOR_X BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0)
#define JUMP(op, k, yes, no) BPF_JUMP(BPF_JMP | (op) | BPF_K, (k), (yes), (no))

int steer_attach(int fd, struct owner_key key, unsigned shards, bool mesh)
{
    struct sock_filter code[] = {
        /* 0 */ BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        /* 1 */ JUMP(BPF_JGE, 1, 0, 11), /* empty: by flow, 13 */
        /* 2 */ LOAD(BPF_B, 0),
        /* 3 */ JUMP(BPF_JEQ, mesh ? GOSSIP_TYPE : NO_BYTE, 1, 0),
        /* 4 */ JUMP(BPF_JEQ, mesh ? MSG_SYNC : NO_BYTE, 0, 1),
        /* 5: gossip */ BPF_STMT(BPF_RET | BPF_K, shards),
        /* 6 */ JUMP(BPF_JEQ, MSG_DISCOVER, 2, 0),
        /* 7 */ JUMP(BPF_JEQ, MSG_DISCOVER_EX, 1, 0),
        /* 8 */ JUMP(BPF_JEQ, MSG_PUNCH_REQUEST, 0, 4),
        /* 9 */ BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        /* 10 */ JUMP(BPF_JGE, MSG_DISCOVER_LEN, 0, 2), /* shorter: by flow */
        /* 11 */ LOAD(BPF_W, 1),                        /* the sender's id */
        /* 12 */ JUMP(BPF_JA, 22, 0, 0),                /* to 35 */
        /* 13 */ LOAD(BPF_B, NET),
        /* 14 */ ALU(BPF_RSH, 4),
        /* 15 */ JUMP(BPF_JEQ, 6, 5, 0),
        /* 16 */ LOAD(BPF_W, V4_SOURCE),
        /* 17 */ TO_X,
        /* 18 */ LOAD(BPF_H, V4_PORTS),
        /* 19 */ ALU(BPF_MUL, SPREAD),
        /* 20 */ JUMP(BPF_JA, 13, 0, 0), /* to 34 */
        /* 21 */ LOAD(BPF_W, V6_SOURCE),
        /* 22 */ TO_X,
        /* 23 */ LOAD(BPF_W, V6_SOURCE + 4),
        /* 24 */ XOR_X,
        /* 25 */ TO_X,
        /* 26 */ LOAD(BPF_W, V6_SOURCE + 8),
        /* 27 */ XOR_X,
        /* 28 */ TO_X,
        /* 29 */ LOAD(BPF_W, V6_SOURCE + 12),
        /* 30 */ XOR_X,
        /* 31 */ TO_X,
        /* 32 */ LOAD(BPF_H, V6_PORTS),
        /* 33 */ ALU(BPF_MUL, SPREAD),
        /* 34: port and address */ XOR_X,
        /* 35: route_owner */ ALU(BPF_XOR, key.add),
        ALU(BPF_MUL, key.multiply),
        TO_X,
        ALU(BPF_RSH, 16),
        XOR_X,
        ALU(BPF_MUL, 0x7feb352du),
        TO_X,
        ALU(BPF_RSH, 15),
        XOR_X,
        ALU(BPF_MOD, shards),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    return 0;
}
