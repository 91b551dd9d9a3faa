/* mailbox.c - inboxes: a ring for each sender, a bitmap of who sends, a sleep flag.
 *
 * Threads: as mailbox.h says. Invariants:
 *   - A ring's memory, once published in rings[], stays until inbox_finish(), since the
 *     receiver may be looking at it. A port that comes back takes the ring of its number
 *     again; only a ring that is too small is retired, so that a number's retired rings
 *     together are smaller than its current one.
 *   - A peer with something in its ring has its ready bit set, or is between the two steps of
 *     mailbox_send(), or the receiver is in forget_silent(). */
#include "runtime/mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/base.h"

#define LINE_PAIR_BYTES 128 /* lines are prefetched in pairs */
#define LOOKS_AT_SILENT 64u /* drains that find nothing of a peer before its bit is taken */

/* A slot is full once it has the number of its batch: who looks for mail looks at the line that
 * brings it, and at no other. Numbers begin at 1 and wrap. */
struct slot {
  _Atomic uint32_t number;
  struct mailbox_slot mail;
};
_Static_assert(sizeof(struct slot) == 64, "a line");

struct mailbox_ring {
  uint32_t capacity; /* size - 1 */
  bool open;         /* the sender's; the receiver does not look */
  struct mailbox_ring *retired;
  char pad_sender[LINE_PAIR_BYTES];
  uint32_t sent;
  uint32_t taken_seen; /* the last look at `taken` */
  char pad_receiver[LINE_PAIR_BYTES];
  _Atomic uint32_t taken;
  char pad_slots[LINE_PAIR_BYTES];
  struct slot slots[] __attribute__((aligned(64)));
};

static struct slot *slot_of(const struct mailbox_ring *ring, uint32_t n) {
  return (struct slot *)(uintptr_t)&ring->slots[n & ring->capacity];
}

/* The sender's. */
static uint32_t ring_room(const struct mailbox_ring *ring) {
  struct mailbox_ring *own = (struct mailbox_ring *)(uintptr_t)ring;
  own->taken_seen = atomic_load_explicit(&own->taken, memory_order_acquire);
  return ring->capacity - (ring->sent - ring->taken_seen);
}

static bool ring_has_room(const struct mailbox_ring *ring) {
  return ring->sent - ring->taken_seen < ring->capacity || ring_room(ring) > 0;
}

/* What follows is seen by nobody before the batch is: an exchange is a full fence, besides being in
 * the one order of all seq_cst operations. */
static bool ring_put(struct mailbox_ring *ring, const struct mailbox_slot *mail) {
  if (unlikely(!ring_has_room(ring))) return false;
  struct slot *to = slot_of(ring, ring->sent);
  /* Word by word, as it was written a moment ago: the CPU forwards that, and no wider loads. */
  to->mail.batch = mail->batch;
  for (uint32_t i = 0; i < MAILBOX_TOUCHES; i++) {
    to->mail.touch[i] = mail->touch[i];
    if (!mail->touch[i]) break;
  }
  atomic_exchange_explicit(&to->number, ++ring->sent, memory_order_seq_cst);
  return true;
}

/* The receiver's. */
static struct slot *ring_next(const struct mailbox_ring *ring) {
  struct mailbox_ring *own = (struct mailbox_ring *)(uintptr_t)ring;
  uint32_t taken = atomic_load_explicit(&own->taken, memory_order_relaxed);
  struct slot *next = slot_of(ring, taken);
  return atomic_load_explicit(&next->number, memory_order_seq_cst) == taken + 1 ? next : NULL;
}

/* Takes the next batch, and fetches what it names. */
static void *ring_take(struct mailbox_ring *ring) {
  struct slot *next = ring_next(ring);
  if (!next) return NULL;
  void *batch = next->mail.batch;
  for (uint32_t i = 0; i < MAILBOX_TOUCHES && next->mail.touch[i]; i++)
    mailbox_fetch(next->mail.touch[i]);
  uint32_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
  atomic_store_explicit(&ring->taken, taken + 1, memory_order_release);
  return batch;
}

static struct mailbox_ring *ring_new(uint32_t capacity_min) {
  uint32_t size = 2;
  while (size - 1 < capacity_min) size *= 2;
  size_t bytes = sizeof(struct mailbox_ring) + size * sizeof(struct slot);
  struct mailbox_ring *ring = aligned_alloc(LINE_PAIR_BYTES, round_up(bytes, LINE_PAIR_BYTES));
  if (!ring) return NULL;
  memset(ring, 0, bytes);
  ring->capacity = size - 1;
  return ring;
}

int inbox_init(struct inbox *inbox, uint32_t peers_max) {
  if (peers_max == 0 || peers_max > INBOX_PEERS_MAX) return -EINVAL;
  inbox->peers_max = peers_max;
  inbox->words = (uint32_t)div_up(peers_max, 64);
  for (uint32_t w = 0; w < INBOX_READY_WORDS; w++) atomic_init(&inbox->ready[w], 0);
  atomic_init(&inbox->sleeping, 0);
  memset(inbox->heard, 0, sizeof inbox->heard);
  memset(inbox->looks, 0, sizeof inbox->looks);
  for (uint32_t p = 0; p < INBOX_PEERS_MAX; p++) atomic_init(&inbox->rings[p], NULL);
  return 0;
}

void inbox_finish(struct inbox *inbox) {
  for (uint32_t p = 0; p < inbox->peers_max; p++) {
    struct mailbox_ring *ring = atomic_load_explicit(&inbox->rings[p], memory_order_acquire);
    atomic_store_explicit(&inbox->rings[p], NULL, memory_order_relaxed);
    while (ring) {
      struct mailbox_ring *older = ring->retired;
      free(ring);
      ring = older;
    }
  }
}

/* relaxed serves a sender, since its own open is ordered before it; the receiver acquires */
static struct mailbox_ring *ring_of(const struct inbox *inbox, uint32_t peer, memory_order order) {
  check(peer < inbox->peers_max);
  /* C11 forgot const here */
  return atomic_load_explicit(&((struct inbox *)(uintptr_t)inbox)->rings[peer], order);
}

int inbox_add_peer(struct inbox *inbox, uint32_t peer, uint32_t slots) {
  if (peer >= inbox->peers_max || slots == 0 || slots > INBOX_SLOTS_MAX) return -EINVAL;
  struct mailbox_ring *old = ring_of(inbox, peer, memory_order_acquire);
  if (old && old->open) return -EEXIST;
  if (old && old->capacity >= slots) {
    old->open = true;
    return 0;
  }
  struct mailbox_ring *ring = ring_new(slots);
  if (!ring) return -ENOMEM;
  ring->open = true;
  ring->retired = old;
  atomic_store_explicit(&inbox->rings[peer], ring, memory_order_seq_cst);
  return 0;
}

int inbox_remove_peer(struct inbox *inbox, uint32_t peer) {
  if (peer >= inbox->peers_max) return -ENOENT;
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_acquire);
  if (!ring || !ring->open) return -ENOENT;
  if (ring_room(ring) != ring->capacity) return -EBUSY;
  ring->open = false;
  return 0;
}

bool mailbox_send_slot(struct inbox *inbox, uint32_t peer, const struct mailbox_slot *slot,
                       bool *wake) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_relaxed);
  check(ring && ring->open);
  check(slot->batch);
  *wake = false;
  /* The order is: batch, bit, flag, each visible before the next look. */
  if (!ring_put(ring, slot)) return false;
  _Atomic uint64_t *ready = &inbox->ready[peer / 64];
  uint64_t bit = UINT64_C(1) << (peer % 64);
  if (!(atomic_load_explicit(ready, memory_order_seq_cst) & bit))
    atomic_fetch_or_explicit(ready, bit, memory_order_seq_cst);
  if (atomic_load_explicit(&inbox->sleeping, memory_order_seq_cst))
    *wake = atomic_exchange_explicit(&inbox->sleeping, 0, memory_order_seq_cst) != 0;
  return true;
}

bool mailbox_send(struct inbox *inbox, uint32_t peer, void *batch, bool *wake) {
  const struct mailbox_slot slot = {.batch = batch};
  return mailbox_send_slot(inbox, peer, &slot, wake);
}

uint32_t mailbox_room(const struct inbox *inbox, uint32_t peer) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_relaxed);
  check(ring && ring->open);
  return ring_room(ring);
}

bool mailbox_has_room(const struct inbox *inbox, uint32_t peer) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_relaxed);
  check(ring && ring->open);
  mailbox_fetch(slot_of(ring, ring->sent));
  return ring_has_room(ring);
}

/* Stops after one ring's capacity. A batch is taken before the one before it is delivered: its
 * lines are on their way meanwhile. */
static uint32_t drain_peer(struct inbox *inbox, uint32_t peer, inbox_deliver_fn *deliver,
                           void *arg) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_seq_cst);
  check(ring);
  uint32_t n = 0;
  for (void *batch = ring_take(ring), *next; batch; batch = next) {
    next = ++n < ring->capacity ? ring_take(ring) : NULL;
    deliver(arg, peer, batch);
  }
  return n;
}

static bool ring_has_mail(const struct inbox *inbox, uint32_t peer) {
  const struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_seq_cst);
  return ring && ring_next(ring);
}

/* Now and then: takes the bits of those that have sent nothing lately. First the bit, then a look
 * at the ring: the other way round a batch that comes in between would have no bit. */
static void forget_silent(struct inbox *inbox, uint32_t word) {
  uint64_t silent =
      atomic_load_explicit(&inbox->ready[word], memory_order_relaxed) & ~inbox->heard[word];
  inbox->heard[word] = 0;
  if (!silent) return;
  atomic_fetch_and_explicit(&inbox->ready[word], ~silent, memory_order_seq_cst);
  for (uint64_t back = 0; silent; silent &= silent - 1, back = 0) {
    uint32_t peer = word * 64 + (uint32_t)__builtin_ctzll(silent);
    if (ring_has_mail(inbox, peer)) back = silent & -silent;
    if (back) atomic_fetch_or_explicit(&inbox->ready[word], back, memory_order_seq_cst);
  }
}

uint32_t inbox_drain(struct inbox *inbox, inbox_deliver_fn *deliver, void *arg) {
  uint32_t n = 0;
  for (uint32_t w = 0; w < inbox->words; w++) {
    uint64_t bits = atomic_load_explicit(&inbox->ready[w], memory_order_relaxed);
    if (likely(bits == 0)) continue;
    uint64_t heard = 0;
    for (; bits; bits &= bits - 1) {
      uint32_t got = drain_peer(inbox, w * 64 + (uint32_t)__builtin_ctzll(bits), deliver, arg);
      heard |= got ? bits & -bits : 0;
      n += got;
    }
    inbox->heard[w] |= heard;
    if (unlikely(++inbox->looks[w] % LOOKS_AT_SILENT == 0)) forget_silent(inbox, w);
  }
  return n;
}

bool inbox_has_mail(const struct inbox *inbox) {
  struct inbox *own = (struct inbox *)(uintptr_t)inbox;
  for (uint32_t w = 0; w < inbox->words; w++) {
    uint64_t bits = atomic_load_explicit(&own->ready[w], memory_order_seq_cst);
    for (; bits; bits &= bits - 1)
      if (ring_has_mail(inbox, w * 64 + (uint32_t)__builtin_ctzll(bits))) return true;
  }
  return false;
}

bool inbox_prepare_sleep(struct inbox *inbox) {
  /* An exchange, which is a full fence on every machine, besides being in the one order of
   * all seq_cst operations. */
  atomic_exchange_explicit(&inbox->sleeping, 1, memory_order_seq_cst);
  if (!inbox_has_mail(inbox)) return true;
  inbox_awake(inbox);
  return false;
}

void inbox_awake(struct inbox *inbox) {
  atomic_store_explicit(&inbox->sleeping, 0, memory_order_release);
}
