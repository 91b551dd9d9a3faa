/* mailbox.h - how threads hand batches to each other: one inbox per receiver, and in it one
 * single-producer single-consumer ring for each sender ("peer").
 *
 * What travels is an opaque pointer, by custom the head of a chain of requests, so that one
 * slot carries a batch. Within one peer batches arrive in the order of sending; between peers
 * there is no order.
 *
 * Threads. Each inbox has one receiver: inbox_drain(), inbox_prepare_sleep(), inbox_awake()
 * and inbox_has_mail() are its own. Each peer number has one sender at a time: mailbox_send()
 * and mailbox_room() are its own. If a peer number passes from one thread to another (port
 * close, port open) the caller's own lock must order the two. The library takes no lock and
 * makes no system call.
 *
 * Credits. The capacity of a ring is the credit of that (sender, receiver) pair, counted in
 * batches. A full ring is -EAGAIN for whoever submitted: mailbox_send() returns false, nothing
 * has changed, and the sender keeps the batch. Credit returns as the receiver drains. A pair
 * that answers each batch with at most one batch, and never has more batches outstanding than
 * the answering ring has slots, cannot find that ring full.
 *
 * Sleep and wake. The order is the whole point (docs/models/sleep_wake.pml proves it):
 *   receiver: sleeping = 1; look at the rings of all whose ready bit is set; only if they are
 *             empty, block
 *   sender:   put into the ring; set the ready bit, if it is not; look at sleeping; whoever turns
 *             it from 1 to 0 makes the one system call that wakes
 *   receiver: of a peer that has been silent for a while takes the bit away; looks at its ring
 *             once more, and sets the bit again if there is something
 * The accesses that this order names (to a slot of the ring, the bit, the flag) are sequentially
 * consistent, so that at least one side sees the other. A sender to an awake receiver makes no
 * system call, and of many senders to a sleeping one exactly one does. The means of waking is the
 * owner's: an eventfd or another thing that remembers; a wake may arrive after the receiver has got
 * up by itself, so the receiver must bear a spurious one.
 *
 * Cache lines. Two threads at work write neither bits nor flag: the bit stays as long as mail
 * comes, and a line that nobody writes costs nothing. A batch moves one line, its slot, which says
 * itself that it is full; how far the receiver is the sender looks up only when by his last look
 * the ring is full.
 *
 *   for (;;) {
 *     if (inbox_drain(&inbox, deliver, arg) > 0) continue;
 *     if (!inbox_prepare_sleep(&inbox)) continue;
 *     read(event_fd, ...);     // or wait for a completion
 *     inbox_awake(&inbox);
 *   }
 */
#ifndef RUNTIME_MAILBOX_H
#define RUNTIME_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define INBOX_PEERS_MAX   384u /* 65 ports and 256 cores, to whole words */
#define INBOX_READY_WORDS (INBOX_PEERS_MAX / 64)
#define INBOX_SLOTS_MAX   65536u

struct mailbox_ring;

/* What a slot of a ring carries. */
#define MAILBOX_TOUCHES 6u
struct mailbox_slot {
  void *batch;
  void *touch[MAILBOX_TOUCHES]; /* what the receiver will write to first, up to a NULL: all of it
                                   is fetched at once when the batch is taken */
};

/* Fetches the line of `what` for writing. (On CPUs that do not know it the instruction does
 * nothing.) */
static inline void mailbox_fetch(const void *what) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*(const char *)what));
#else
  __builtin_prefetch(what, 1);
#endif
}

/* Fields are private. The pads keep what senders write, what the receiver writes and what
 * nobody writes on different cache lines, however the struct itself is aligned. */
struct inbox {
  uint32_t peers_max;
  uint32_t words; /* of ready[] in use */
  char pad_ready[64];
  _Atomic uint64_t ready[INBOX_READY_WORDS]; /* bit = peer that has sent lately */
  char pad_sleeping[64];
  _Atomic uint32_t sleeping;
  char pad_heard[64];
  uint64_t
      heard[INBOX_READY_WORDS]; /* the receiver's: who has sent since silent ones were sought */
  uint32_t looks[INBOX_READY_WORDS];
  char pad_rings[64];
  struct mailbox_ring *_Atomic rings[INBOX_PEERS_MAX];
};

/* An empty inbox for peers 0 to peers_max - 1, on the caller's memory; any alignment.
 * -EINVAL: peers_max is 0 or above INBOX_PEERS_MAX. Before any other thread knows it. */
int inbox_init(struct inbox *inbox, uint32_t peers_max);
/* Frees all rings. No thread may use the inbox any more; batches that are still inside are
 * the caller's to know. An all-zero inbox is fine. */
void inbox_finish(struct inbox *inbox);

/* Opens peer's ring with room for at least `slots` batches (1 to INBOX_SLOTS_MAX). Any thread,
 * also while the receiver drains and other peers send; two calls for one peer must not
 * overlap. -EINVAL: out of range; -EEXIST: it is open; -ENOMEM. */
int inbox_add_peer(struct inbox *inbox, uint32_t peer, uint32_t slots);
/* Closes peer's ring. By the thread that may send as this peer. The receiver may be looking
 * at the ring, so its memory stays until the next inbox_add_peer() of this number, which uses
 * it again, or inbox_finish(). -ENOENT: not open; -EBUSY: a batch has not been delivered yet,
 * and the ring stays open. */
int inbox_remove_peer(struct inbox *inbox, uint32_t peer);

/* Sends a batch (not NULL) as `peer`, whose ring must be open. False: full, see "Credits".
 * *wake is set to whether the caller must now wake the receiver; false when full. */
bool mailbox_send(struct inbox *inbox, uint32_t peer, void *batch, bool *wake);
/* The same, and the receiver fetches what slot->touch names. */
bool mailbox_send_slot(struct inbox *inbox, uint32_t peer, const struct mailbox_slot *slot,
                       bool *wake);
/* How many batches `peer` can certainly send now. */
uint32_t mailbox_room(const struct inbox *inbox, uint32_t peer);
/* Whether it is at least one; fetches the slot that will carry it. */
bool mailbox_has_room(const struct inbox *inbox, uint32_t peer);

/* Calls deliver(arg, peer, batch) for the batches of all peers that have sent something; the
 * cost is O(peers that have sent lately: within 64 drains), not O(peers). Takes at most one ring's
 * capacity from each, so that a busy sender cannot hold the receiver; what remains is found by the
 * next call. Returns how many were delivered. deliver may send to any inbox, this one included, but
 * must not drain this one. */
typedef void inbox_deliver_fn(void *arg, uint32_t peer, void *batch);
uint32_t inbox_drain(struct inbox *inbox, inbox_deliver_fn *deliver, void *arg);
/* A look without side effects. False may be out of date. */
bool inbox_has_mail(const struct inbox *inbox);

/* Announces sleep. True: the receiver may block, the next sender will be told to wake it.
 * False: there is mail; the announcement is withdrawn. */
bool inbox_prepare_sleep(struct inbox *inbox);
/* After sleep, for whatever reason it ended, also for another reason than mail. */
void inbox_awake(struct inbox *inbox);

#endif
