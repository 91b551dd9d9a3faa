/* bench_load.h - what the parts of a load (bench_load.c, bench_flush.c, bench_special.c) have of
 * each other. All of it runs on the load's own thread. */
#ifndef TOOLS_BENCH_LOAD_H
#define TOOLS_BENCH_LOAD_H

#include "tools/bench.h"

/* ---- bench_load.c */

/* A request has finished: accounts for it, submits a batch if one is there. */
void load_done(struct sr_request *request);
void load_submit(struct load *l);
void load_account(struct load *l, struct load_work *w);
void load_note_error(struct load *l, int error);

static inline uint64_t load_pick(struct load *l, uint64_t count) {
  uint64_t x = l->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  l->random = x;
  return (uint64_t)(((__uint128_t)x * count) >> 64);
}
/* One of n things (always the same n). */
static inline uint64_t load_pick_skewed(struct load *l, uint64_t n) {
  if (__builtin_expect(l->distribution.n == 0, 1)) return load_pick(l, n);
  return distribution_pick(&l->distribution);
}
static inline uint64_t load_number_at(const struct load *l, uint64_t place) {
  return l->numbers ? l->numbers[place] : l->first + place;
}

/* ---- bench_flush.c */

void load_wait_for_room(struct load *l, struct load_work *w);
void load_flush_done(struct sr_request *request);
/* A put has finished. True: no further one of this work may be sent now; it is held back. */
bool load_flush_after(struct load *l, struct load_work *w);
/* At the end: true if a flush was sent, after which the end comes again. */
bool load_flush_last(struct load *l);

/* ---- bench_special.c */

void load_set_up_special(struct load *l, const struct load_config *c);
void load_aim_special(struct load *l, struct load_work *w);
void load_special_done(struct sr_request *request);
/* A blob's number, and which of its blocks: in order or at random, of this core or of another. */
uint64_t load_choose(struct load *l, struct load_work *w, uint64_t *block);
uint64_t load_blob_bytes(const struct load *l, uint64_t number);

/* ---- bench_script.c */

/* -ENOMEM. Buffers are there. */
int load_set_up_script(struct load *l);
void load_script_done(struct sr_request *request);
static inline void *load_state(struct load *l, const struct load_work *w) {
  return l->state + (size_t)(w - l->works) * l->script->state_bytes;
}
static inline void *load_buffer(struct load *l, const struct load_work *w, uint32_t index) {
  return l->memory + ((size_t)(w - l->works) * l->script->buffers + index) * l->stride;
}
/* Of class `c`, so many bytes; from 0: not timed. */
void load_class_add(struct load *l, uint32_t c, uint64_t bytes, uint64_t now_ns, uint64_t from_ns,
                    uint64_t sent_ns);
/* --verify, of what has been read. */
void load_compare(struct load *l, struct load_work *w, uint64_t bytes);

#endif
