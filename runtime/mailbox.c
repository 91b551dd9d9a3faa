/* mailbox.c - inboxes: a ring for each sender, a bitmap of who has sent, a sleep flag. The one
 * door to ck_ring.
 *
 * Threads: as mailbox.h says. Invariants:
 *   - A ring's memory, once published in rings[], stays until inbox_finish(), since the
 *     receiver may be looking at it. A port that comes back takes the ring of its number
 *     again; only a ring that is too small is retired, so that a number's retired rings
 *     together are smaller than its current one.
 *   - A peer with something in its ring has its ready bit set, or is between the two steps of
 *     mailbox_send(), or is being drained at this moment. */
#include "runtime/mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/base.h"

/* Whether to use ck. ThreadSanitizer does not see ck's fences, which are inline assembly. And
 * where loads may pass later stores, ck's consumer gives a slot back with a store fence alone,
 * which does not keep the load of the slot before it: so only on x86, which keeps that order. */
#if defined(__SANITIZE_THREAD__)
#define RING_IS_CK 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RING_IS_CK 0
#endif
#endif
#if !defined(RING_IS_CK)
#if defined(__x86_64__)
#define RING_IS_CK 1
#else
#define RING_IS_CK 0
#endif
#endif

#define LINE_PAIR_BYTES 128 /* lines are prefetched in pairs */

#if RING_IS_CK

#include <ck_ring.h>

struct ring {
  ck_ring_t counters; /* keeps the consumer's, the producer's and the constants apart */
};
typedef ck_ring_buffer_t ring_slot;

static void ring_init(struct ring *ring, uint32_t size) { ck_ring_init(&ring->counters, size); }

static bool ring_put(struct ring *ring, ring_slot *slots, void *batch) {
  return ck_ring_enqueue_spsc(&ring->counters, slots, batch);
}

static bool ring_take(struct ring *ring, ring_slot *slots, void **batch) {
  return ck_ring_dequeue_spsc(&ring->counters, slots, batch);
}

static uint32_t ring_used(const struct ring *ring) { return ck_ring_size(&ring->counters); }

#else

/* The same ring on C11 atomics. */
struct ring {
  _Atomic uint32_t head; /* the consumer's */
  char pad_tail[64];
  _Atomic uint32_t tail; /* the producer's */
  char pad_mask[64];
  uint32_t mask;
};
typedef void *ring_slot;

static void ring_init(struct ring *ring, uint32_t size) {
  atomic_init(&ring->head, 0);
  atomic_init(&ring->tail, 0);
  ring->mask = size - 1;
}

static bool ring_put(struct ring *ring, ring_slot *slots, void *batch) {
  uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
  if (tail - head == ring->mask) return false;
  slots[tail & ring->mask] = batch;
  atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
  return true;
}

static bool ring_take(struct ring *ring, ring_slot *slots, void **batch) {
  uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
  if (head == tail) return false;
  *batch = slots[head & ring->mask];
  atomic_store_explicit(&ring->head, head + 1, memory_order_release);
  return true;
}

static uint32_t ring_used(const struct ring *ring) {
  uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
  return atomic_load_explicit(&ring->tail, memory_order_acquire) - head;
}

#endif

struct mailbox_ring {
  struct ring ring;
  char pad_constants[64];
  uint32_t capacity; /* size - 1: a ring keeps one slot empty */
  bool open;         /* the sender's; the receiver does not look */
  struct mailbox_ring *retired;
  ring_slot slots[] __attribute__((aligned(64)));
};

static struct mailbox_ring *ring_new(uint32_t capacity_min) {
  uint32_t size = 2;
  while (size - 1 < capacity_min) size *= 2;
  size_t bytes = sizeof(struct mailbox_ring) + size * sizeof(ring_slot);
  struct mailbox_ring *ring = aligned_alloc(LINE_PAIR_BYTES, round_up(bytes, LINE_PAIR_BYTES));
  if (!ring) return NULL;
  memset(ring, 0, bytes);
  ring_init(&ring->ring, size);
  ring->capacity = size - 1;
  return ring;
}

int inbox_init(struct inbox *inbox, uint32_t peers_max) {
  if (peers_max == 0 || peers_max > INBOX_PEERS_MAX) return -EINVAL;
  inbox->peers_max = peers_max;
  inbox->words = (uint32_t)div_up(peers_max, 64);
  for (uint32_t w = 0; w < INBOX_READY_WORDS; w++) atomic_init(&inbox->ready[w], 0);
  atomic_init(&inbox->sleeping, 0);
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
  atomic_store_explicit(&inbox->rings[peer], ring, memory_order_release);
  return 0;
}

int inbox_remove_peer(struct inbox *inbox, uint32_t peer) {
  if (peer >= inbox->peers_max) return -ENOENT;
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_acquire);
  if (!ring || !ring->open) return -ENOENT;
  if (ring_used(&ring->ring) != 0) return -EBUSY;
  ring->open = false;
  return 0;
}

bool mailbox_send(struct inbox *inbox, uint32_t peer, void *batch, bool *wake) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_relaxed);
  check(ring && ring->open);
  check(batch);
  *wake = false;
  if (!ring_put(&ring->ring, ring->slots, batch)) return false;
  /* The order is: batch, bit, flag. The bit is set even if it is set already: a receiver that
   * has just taken it may have looked at the ring before the batch was there. */
  atomic_fetch_or_explicit(&inbox->ready[peer / 64], UINT64_C(1) << (peer % 64),
                           memory_order_seq_cst);
  if (atomic_load_explicit(&inbox->sleeping, memory_order_seq_cst))
    *wake = atomic_exchange_explicit(&inbox->sleeping, 0, memory_order_seq_cst) != 0;
  return true;
}

uint32_t mailbox_room(const struct inbox *inbox, uint32_t peer) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_relaxed);
  check(ring && ring->open);
  return ring->capacity - ring_used(&ring->ring);
}

/* Stops after one ring's capacity. What is then still there was put after we took the bit, for
 * the ring held no more than that; so its sender sets the bit again, or has done so. */
static uint32_t drain_peer(struct inbox *inbox, uint32_t peer, inbox_deliver_fn *deliver,
                           void *arg) {
  struct mailbox_ring *ring = ring_of(inbox, peer, memory_order_acquire);
  check(ring);
  void *batch = NULL;
  uint32_t n = 0;
  for (; n < ring->capacity && ring_take(&ring->ring, ring->slots, &batch); n++)
    deliver(arg, peer, batch);
  return n;
}

uint32_t inbox_drain(struct inbox *inbox, inbox_deliver_fn *deliver, void *arg) {
  uint32_t n = 0;
  for (uint32_t w = 0; w < inbox->words; w++) {
    if (likely(atomic_load_explicit(&inbox->ready[w], memory_order_relaxed) == 0)) continue;
    /* The bits first, then the rings: the other way round a batch that comes in between would
     * lose its bit. */
    uint64_t bits = atomic_exchange_explicit(&inbox->ready[w], 0, memory_order_seq_cst);
    for (; bits; bits &= bits - 1)
      n += drain_peer(inbox, w * 64 + (uint32_t)__builtin_ctzll(bits), deliver, arg);
  }
  return n;
}

static bool any_ready(const struct inbox *inbox, memory_order order) {
  struct inbox *own = (struct inbox *)(uintptr_t)inbox;
  for (uint32_t w = 0; w < inbox->words; w++)
    if (atomic_load_explicit(&own->ready[w], order) != 0) return true;
  return false;
}

bool inbox_has_mail(const struct inbox *inbox) { return any_ready(inbox, memory_order_relaxed); }

bool inbox_prepare_sleep(struct inbox *inbox) {
  /* An exchange, which is a full fence on every machine, besides being in the one order of
   * all seq_cst operations. */
  atomic_exchange_explicit(&inbox->sleeping, 1, memory_order_seq_cst);
  if (!any_ready(inbox, memory_order_seq_cst)) return true;
  inbox_awake(inbox);
  return false;
}

void inbox_awake(struct inbox *inbox) {
  atomic_store_explicit(&inbox->sleeping, 0, memory_order_release);
}
