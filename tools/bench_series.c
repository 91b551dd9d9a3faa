/* bench_series.c - see bench_series.h. */
#include "tools/bench_series.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { FIRST_POWER = 7, SUB_BITS = 3 };

uint32_t series_bucket(uint64_t ns) {
  if (ns < 1u << FIRST_POWER) return 0;
  uint32_t power = 63u - (uint32_t)__builtin_clzll(ns);
  uint32_t sub = (uint32_t)(ns >> (power - SUB_BITS)) & ((1u << SUB_BITS) - 1);
  uint32_t bucket = ((power - FIRST_POWER) << SUB_BITS) + sub;
  return bucket < SERIES_BUCKETS ? bucket : SERIES_BUCKETS - 1;
}

static uint64_t upper_end(uint32_t bucket) {
  uint32_t power = FIRST_POWER + (bucket >> SUB_BITS);
  uint64_t sub = (bucket & ((1u << SUB_BITS) - 1)) + (1u << SUB_BITS) + 1;
  return (sub << (power - SUB_BITS)) - 1;
}

/* Round ones: 10, 20, 50, 100 ms and so on. */
static uint64_t interval_for(uint64_t duration_ns) {
  static const uint64_t steps[] = {1, 2, 5};
  uint64_t ns = 10000000;
  for (unsigned i = 1; duration_ns / ns >= SERIES_SLOTS; i++) {
    uint64_t power = 10000000;
    for (unsigned k = 0; k < i / 3; k++) power *= 10;
    ns = steps[i % 3] * power;
  }
  return ns;
}

int series_init(struct series *s, uint64_t duration_ns) {
  *s = (struct series){.interval_ns = interval_for(duration_ns)};
  s->slots = calloc(SERIES_SLOTS, sizeof(*s->slots));
  return s->slots ? 0 : -ENOMEM;
}

void series_finish(struct series *s) {
  free(s->slots);
  *s = (struct series){0};
}

static struct series_slot *slot_at(struct series *s, uint64_t at_ns) {
  uint64_t i = at_ns / s->interval_ns;
  if (i >= SERIES_SLOTS) i = SERIES_SLOTS - 1;
  if (i >= s->count) s->count = (uint32_t)i + 1;
  return &s->slots[i];
}

void series_end(struct series *s, uint64_t at_ns, uint64_t ops) {
  if (!s->slots || ops <= s->ops) return;
  slot_at(s, at_ns)->ops += ops - s->ops;
  s->ops = ops;
}

void series_add(struct series *s, uint64_t at_ns, uint64_t ops, uint64_t latency_ns) {
  if (!s->slots) return;
  struct series_slot *slot = slot_at(s, at_ns);
  slot->ops += ops - s->ops;
  s->ops = ops;
  slot->timed++;
  slot->sum_ns += latency_ns;
  if (latency_ns > slot->max_ns) slot->max_ns = latency_ns;
  slot->buckets[series_bucket(latency_ns)]++;
}

int series_merge(struct series *into, const struct series *from) {
  if (!from->slots) return 0;
  if (!into->slots) {
    into->slots = calloc(SERIES_SLOTS, sizeof(*into->slots));
    into->interval_ns = from->interval_ns;
    if (!into->slots) return -ENOMEM;
  }
  if (from->count > into->count) into->count = from->count;
  into->ops += from->ops;
  for (uint32_t i = 0; i < from->count; i++) {
    struct series_slot *to = &into->slots[i];
    const struct series_slot *more = &from->slots[i];
    to->ops += more->ops;
    to->timed += more->timed;
    to->sum_ns += more->sum_ns;
    if (more->max_ns > to->max_ns) to->max_ns = more->max_ns;
    for (uint32_t b = 0; b < SERIES_BUCKETS; b++) to->buckets[b] += more->buckets[b];
  }
  return 0;
}

uint64_t series_percentile_ns(const struct series_slot *slot, double percent) {
  uint64_t want = (uint64_t)ceil((double)slot->timed * percent / 100), seen = 0;
  if (slot->timed == 0) return 0;
  if (want == 0) want = 1;
  for (uint32_t b = 0; b < SERIES_BUCKETS; b++) {
    seen += slot->buckets[b];
    if (seen >= want) return upper_end(b) < slot->max_ns ? upper_end(b) : slot->max_ns;
  }
  return slot->max_ns;
}
