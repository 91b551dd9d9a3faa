/* readers.h - when does nobody look at old memory any more: one writer, readers on other threads.
 *
 * A reader says that it looks (readers_enter()), follows pointers, and says that it has finished.
 * It takes no lock and is never waited for. The writer takes memory out of what can be reached
 * from then on, asks for a tag (readers_tag()), and may free the memory once readers_passed() says
 * that all who were looking at that time have finished. A reader has a place of its own; who uses
 * one place at the same time as another thread breaks both.
 *
 * Order. A reader writes its place, fence, follows pointers; the writer changes pointers, fence,
 * looks at the places. One of the two sees what the other has written: the writer the reader, who
 * is waited for, or the reader the new pointers. */
#ifndef SHARDS_BASE_READERS_H
#define SHARDS_BASE_READERS_H

#include <stdatomic.h>

#include "shards/base/base.h"

#define READERS_MAX 72u

struct readers {
  _Atomic uint64_t now;   /* from 1 */
  _Atomic uint32_t count; /* places from here on were never used */
  struct {
    _Alignas(64) _Atomic uint64_t since; /* `now` when it began to look; 0: it does not */
  } at[READERS_MAX];
};

static inline void readers_init(struct readers *r) {
  atomic_init(&r->now, 1);
  atomic_init(&r->count, 0);
  for (uint32_t i = 0; i < READERS_MAX; i++) atomic_init(&r->at[i].since, 0);
}

/* ---- A reader ---------------------------------------------------------------------------------
 */

static inline void readers_enter(struct readers *r, uint32_t place) {
  uint32_t count = atomic_load_explicit(&r->count, memory_order_relaxed);
  while (unlikely(count <= place))
    atomic_compare_exchange_weak_explicit(&r->count, &count, place + 1, memory_order_relaxed,
                                          memory_order_relaxed);
  uint64_t now = atomic_load_explicit(&r->now, memory_order_relaxed);
  atomic_store_explicit(&r->at[place].since, now, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
}
static inline void readers_leave(struct readers *r, uint32_t place) {
  atomic_store_explicit(&r->at[place].since, 0, memory_order_release);
}

/* ---- The writer -------------------------------------------------------------------------------
 */

/* Of what cannot be reached any more by who begins to look now. */
static inline uint64_t readers_tag(struct readers *r) {
  uint64_t tag = atomic_load_explicit(&r->now, memory_order_relaxed);
  atomic_store_explicit(&r->now, tag + 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_seq_cst);
  return tag;
}
static inline bool readers_passed(const struct readers *r, uint64_t tag) {
  uint32_t count = atomic_load_explicit(&r->count, memory_order_relaxed);
  for (uint32_t i = 0; i < count; i++) {
    uint64_t since = atomic_load_explicit(&r->at[i].since, memory_order_acquire);
    if (since && since <= tag) return false;
  }
  return true;
}

#endif
