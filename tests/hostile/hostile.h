/* hostile.h - guests and monitors that want harm, against any vhost-user-blk back-end.
 *
 *   hostile.c  the command line; runs cases one after the other, and looks after each one
 *   server.c   our own server, as a child process
 *   monitor.c  the hostile side: messages and rings as they are asked for, however wrong
 *   good.c     the well-behaved client on another disk, whose requests must go on without an error
 *   cases_*.c  the cases
 *
 * A case is over when its monitor is disconnected. Then the server must live, serve a new
 * well-behaved client on the same socket, have let go of all descriptors and mappings, and the good
 * client must have completed more verified requests. What a case itself claims of the back-end's
 * answers it claims with expect_*(); against a foreign back-end only what every one must hold to
 * (see `strict`).
 *
 * Cases run on the main thread. A failure ends the case, not the program: fail_case() does not
 * return. */
#ifndef TESTS_HOSTILE_HOSTILE_H
#define TESTS_HOSTILE_HOSTILE_H

#include <stdatomic.h>

#include "api/vhost/blk.h"
#include "api/vhost/message.h"
#include "tests/random.h"

#define HOSTILE_QUEUES 2u
#define QUEUE_SIZE     128u /* of the hostile rings, if nothing else is said */
#define DISK_BYTES     (UINT64_C(8) << 20)

enum case_kind {
  OWN_SERVER = 1,   /* only against our own: needs something that others do not have */
  BOTH_RINGS = 2,   /* with split and with packed ones, in turn */
  PACKED_RINGS = 4, /* instead of split ones */
};
struct hostile_case {
  const char *name, *what; /* what: the line of the contract that it is for */
  void (*run)(void);
  int kind; /* enum case_kind; true is OWN_SERVER */
};
extern const struct hostile_case cases_message[], cases_descriptor[], cases_memory[], cases_ring[],
    cases_chain[], cases_request[], cases_inflight[], cases_repeat[], cases_order[], cases_packed[];

/* ---- What a case knows (hostile.c) ---- */

extern struct world {
  const char *bad;  /* the socket of the hostile cases' disk */
  const char *good; /* of another disk, or NULL */
  const char *slow; /* of a disk that does 400 operations a second, or NULL: own server */
  const char *late; /* of a disk whose monitors have 300 ms to activate, or NULL: own server */
  int pid;          /* of the server; 0: not known */
  int control;      /* pipe to our own server, else -1 */
  bool strict;      /* our own server: exact answers are asked for */
  bool packed;      /* rings of the monitors that are opened */
} world;

_Noreturn void fail_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define expect(cond) ((cond) ? (void)0 : fail_case("%s:%d: %s", __FILE__, __LINE__, #cond))
uint64_t now_ms(void);
void nap_ms(uint32_t ms);
/* What the server's process holds; 0: not known. */
uint32_t server_fds(void);
uint32_t server_maps(void);
/* Whether it holds no more than these within 20 s. */
void expect_back_to(uint32_t fds, uint32_t maps);
/* A well-behaved client connects to a socket, writes, reads and compares. */
void expect_serves(const char *socket);

/* ---- Our own server (server.c) ---- */

/* The child's main. */
int own_server_main(const char *directory);
/* Of own_server_main() through world.control: the bad disk is resized and its client told. */
void own_server_resize(void);

/* ---- The good client (good.c) ---- */

int good_start(const char *socket);
/* Waits until it has completed so many more requests; NULL, or what was wrong. */
const char *good_progress(uint32_t requests);
void good_stop(void);

/* ---- The hostile side (monitor.c) ---- */

#define MEMORY_BYTES (UINT64_C(8) << 20)
#define GUEST_BASE   UINT64_C(0x100000)
#define USER_BASE    UINT64_C(0x7f0000000000) /* need not be where we have it */
#define DATA_OFFSET  (UINT64_C(1) << 20)      /* from here on no ring */
#define CANARY       0xc5

#define RING_PLAN 256u

struct evil_ring {
  uint32_t size;
  uint64_t desc_at, avail_at, used_at; /* offsets in the memory */
  struct vring_desc *desc;
  struct vring_avail *avail;
  struct vring_used *used;
  int kick_fd, call_fd, err_fd;
  uint16_t seen;    /* used index that the guest has looked at; packed: its position */
  uint32_t last_id; /* of the used entry that was looked at last */
  uint32_t last_bytes;
  /* Of a packed ring: descriptors as put_desc() was given them, a table as a split ring has it.
   * push() follows a chain there and writes what it finds in a row, with the head for an id. */
  struct vring_desc plan[RING_PLAN];
  uint16_t counts[RING_PLAN]; /* descriptors of a head's chain */
  uint16_t next;              /* where the next one goes */
};

struct monitor {
  int fd;
  bool dropped;               /* by the server */
  bool packed, has_packed;    /* rings; has: the server offers them */
  uint64_t offered, protocol; /* offered: without packed rings, unless they are wanted */
  int memory_fd;
  char *memory; /* [MEMORY_BYTES] */
  struct evil_ring rings[HOSTILE_QUEUES];
  struct message_reader reader;
  struct message reply;
};

enum answer { ACCEPTED, REFUSED, DROPPED };

/* Connects (waits up to 20 s for the socket's queue); fails the case if nobody listens. */
void mon_open(struct monitor *m, const char *socket);
/* Closes all of it. The server may take its time. */
void mon_close(struct monitor *m);
void mon_close_all(void); /* whatever a failed case has left open */

struct message msg(uint32_t request, uint32_t bytes);
struct message msg_u64(uint32_t request, uint64_t value);
struct message msg_state(uint32_t request, uint32_t index, uint32_t num);
struct message msg_fd(uint32_t request, uint64_t value, int fd);
/* Sends it as it is, no answer is waited for. False: the server has closed. */
bool mon_send(struct monitor *m, const struct message *message);
/* Bytes and descriptors, up to 253. */
bool mon_raw(struct monitor *m, const void *bytes, size_t count, const int *fds, uint32_t fd_count);
/* Sends and waits for the answer to it, m->reply (its descriptors are the caller's). False: the
 * server has dropped us instead. Neither within 20 s: the case has failed. */
bool mon_ask(struct monitor *m, struct message *message);
/* Sends, and learns by an acknowledgement what came of it. */
enum answer mon_tell(struct monitor *m, struct message *message);
/* The server has closed, or closes within 20 s. */
void expect_dropped(struct monitor *m);
/* It is still there, and answers. */
void expect_connected(struct monitor *m);
/* Not accepted; either way. */
void expect_refused(struct monitor *m, struct message *message);
void expect_accepted(struct monitor *m, struct message *message);

/* Features, owner, acknowledgements. */
void mon_negotiate(struct monitor *m);
void mon_negotiate_features(struct monitor *m, uint64_t features);
struct message_region mon_region(const struct monitor *m);
void mon_share(struct monitor *m); /* its memory, by SET_MEM_TABLE */
struct message mon_address(const struct monitor *m, uint32_t q);
void mon_ring_init(struct monitor *m, uint32_t q, uint32_t size);
/* NUM, BASE, ADDR, CALL, ERR, KICK, ENABLE. */
void mon_start_ring(struct monitor *m, uint32_t q, uint32_t size, uint16_t base);
/* All of it, with both rings running. */
void mon_run(struct monitor *m, const char *socket);

/* ---- Its guest ---- */

static inline uint64_t guest_of(uint64_t offset) { return GUEST_BASE + offset; }
void put_desc(struct monitor *m, uint32_t q, uint16_t i, uint64_t address, uint32_t bytes,
              uint16_t flags, uint16_t next);
/* A descriptor of an indirect table as the kind of ring has it; packed: tables have no chains. */
struct vring_desc table_desc(const struct monitor *m, uint64_t address, uint32_t bytes,
                             uint16_t flags, uint16_t next);
/* The next descriptor of a packed ring, whatever it is. visible: with the flags that say so. */
void put_packed(struct monitor *m, uint32_t q, struct vring_packed_desc d, bool visible);
/* A header at an offset of the memory. */
void put_header(struct monitor *m, uint64_t offset, uint32_t type, uint64_t sector);
/* Makes a head available, without a kick. */
void push(struct monitor *m, uint32_t q, uint16_t head);
void kick(struct monitor *m, uint32_t q);
enum outcome { USED, GONE, NOTHING };
/* Until `count` more are used. NOTHING (neither within a while): only against foreign servers,
 * some of which stop serving a ring; else the case has failed. */
enum outcome wait_used(struct monitor *m, uint32_t q, uint32_t count);
/* push, kick, wait for one. */
enum outcome submit(struct monitor *m, uint32_t q, uint16_t head);
/* A proper request with descriptors 0, 1, 2: 4 KiB at sector 0. Its status, or -1: not answered. */
int proper_read(struct monitor *m, uint32_t q);
void expect_usable(struct monitor *m); /* that it is OK, on both rings */

/* A request whose parts lie at these offsets; head 0. */
enum { AT_HEADER = DATA_OFFSET, AT_STATUS = DATA_OFFSET + 64, AT_DATA = DATA_OFFSET + 0x10000 };
/* The answer to the malformed chain with head 0 of ring 0, whose status byte, if it has one that is
 * writable, lies at AT_STATUS: IOERR, or (not strict) anything but OK. */
void expect_ioerr(struct monitor *m);
void expect_status(struct monitor *m, uint8_t status);
/* A chain that cannot be answered: used with nothing written, or the client is dropped. */
void expect_survived(struct monitor *m);

#endif
