/* bench_live.c - see bench_live.h. */
#include "tools/bench_live.h"

#include "tools/bench.h"

#include <stdio.h>
#include <string.h>

#define WINDOW_NS UINT64_C(500000000)

/* One writer: no need for an instruction that locks the bus. */
#define ADD(counter, n)                                                                            \
  atomic_store_explicit(&(counter), atomic_load_explicit(&(counter), memory_order_relaxed) + (n),  \
                        memory_order_relaxed)

void live_add(struct live *l, uint64_t ops, uint64_t bytes, uint64_t latency_ns) {
  ADD(l->ops, ops);
  ADD(l->bytes, bytes);
  if (latency_ns) ADD(l->buckets[series_bucket(latency_ns)], 1);
}

uint64_t live_ops(const struct live *loads, uint32_t count) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; i++)
    sum += atomic_load_explicit(&loads[i].ops, memory_order_relaxed);
  return sum;
}

uint64_t live_bytes(const struct live *loads, uint32_t count) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; i++)
    sum += atomic_load_explicit(&loads[i].bytes, memory_order_relaxed);
  return sum;
}

bool live_shows(void) { return progress_shows(); }

void live_begin(struct live_line *line, const char *label, const struct live *loads,
                uint32_t count) {
  *line = (struct live_line){.loads = loads, .count = count};
  progress_begin(&line->bar, label);
  line->last_ns = bench_now_ns();
  line->last_ops = live_ops(loads, count);
  line->last_bytes = live_bytes(loads, count);
}

/* What was timed since the last look; its percentiles are those of the slot. */
static void take_latencies(struct live_line *line, struct series_slot *slot) {
  *slot = (struct series_slot){.max_ns = UINT64_MAX};
  for (uint32_t b = 0; b < SERIES_BUCKETS; b++) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < line->count; i++)
      sum += atomic_load_explicit(&line->loads[i].buckets[b], memory_order_relaxed);
    slot->buckets[b] = sum - line->last_buckets[b];
    slot->timed += slot->buckets[b];
    line->last_buckets[b] = sum;
  }
}

static int put_scaled(char *text, size_t bytes, double v, const char *unit) {
  static const char scales[] = " kMG";
  int s = 0;
  while (s < 3 && v >= 1000) v /= 1000, s++;
  return snprintf(text, bytes, "%.*f %.*s%s",
                  v < 10 && s    ? 2
                  : v < 100 && s ? 1
                                 : 0,
                  v, s > 0, scales + s, unit);
}

static void put_us(char *text, size_t bytes, const char *name, uint64_t ns) {
  double us = (double)ns / 1000;
  snprintf(text, bytes, ", %s %.*f us", name, us < 10 ? 1 : 0, us);
}

static void look(struct live_line *line, uint64_t now) {
  static struct series_slot slot;
  uint64_t ops = live_ops(line->loads, line->count), bytes = live_bytes(line->loads, line->count);
  double seconds = (double)(now - line->last_ns) / 1e9;
  char *text = line->text;
  int n = put_scaled(text, sizeof(line->text), (double)(ops - line->last_ops) / seconds, "IOPS");
  if (bytes > line->last_bytes) {
    n += snprintf(text + n, sizeof(line->text) - (size_t)n, ", ");
    n += put_scaled(text + n, sizeof(line->text) - (size_t)n,
                    (double)(bytes - line->last_bytes) / seconds, "B/s");
  }
  take_latencies(line, &slot);
  if (slot.timed) {
    put_us(text + n, sizeof(line->text) - (size_t)n, "p50", series_percentile_ns(&slot, 50));
    n += (int)strlen(text + n);
    put_us(text + n, sizeof(line->text) - (size_t)n, "p99", series_percentile_ns(&slot, 99));
  }
  line->last_ns = now;
  line->last_ops = ops;
  line->last_bytes = bytes;
  progress_note(&line->bar, text);
}

void live_step(struct live_line *line, uint64_t done, uint64_t total) {
  if (line->bar.shown < 0) return;
  uint64_t now = bench_now_ns();
  if (now - line->last_ns >= WINDOW_NS) look(line, now);
  progress_step(&line->bar, done, total);
}

void live_end(struct live_line *line) { progress_end(&line->bar); }
