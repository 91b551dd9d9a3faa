/* damage.c - see damage.h. */
#include "runtime/damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEN_SLOTS (1u << 15)
#define SEEN_MAX   (SEEN_SLOTS / 2) /* beyond it everything is told again and again */

void damage_log_init(struct damage_log *log, const struct damage_sink *sink,
                     const struct logger *logger) {
  memset(log, 0, sizeof *log);
  pthread_mutex_init(&log->lock, NULL);
  log->sink = *sink;
  log->logger = *logger;
}

void damage_log_finish(struct damage_log *log) {
  free(log->seen);
  pthread_mutex_destroy(&log->lock);
}

/* One place is one key, whoever finds it: recovery, or any later scrub. */
static uint64_t key_of(const struct damage *d) {
  static const uint64_t fixed[2] = {0x5eed, 0xda3a6e};
  struct blob_id id = d->id;
  const char *p = d->backing;
  id.hi ^= hash_id((struct blob_id){d->kind, (uint64_t)d->shard << 32 | 1}, fixed);
  id.lo += d->block;
  while (p && *p) id.lo = id.lo * 31 + (uint8_t)*p++;
  uint64_t key = hash_id(id, fixed);
  return key ? key : 1;
}

static bool is_new(struct damage_log *log, uint64_t key) {
  if (!log->seen) log->seen = calloc(SEEN_SLOTS, sizeof *log->seen);
  if (!log->seen || log->seen_count == SEEN_MAX) return true;
  uint64_t at = key % SEEN_SLOTS;
  while (log->seen[at] && log->seen[at] != key) at = (at + 1) % SEEN_SLOTS;
  if (log->seen[at]) return false;
  log->seen[at] = key;
  log->seen_count++;
  return true;
}

static void log_damage(struct damage_log *log, const struct damage *d) {
  int level =
      d->kind == DAMAGE_NOTE || d->kind == DAMAGE_OLD || d->kind == DAMAGE_OLD_VOLUME ? 2 : 0;
  char shard[24] = "", blob[48] = "", place[32] = "";
  if (d->shard != DAMAGE_NO_SHARD) snprintf(shard, sizeof shard, "shard %u: ", d->shard);
  if (d->kind == DAMAGE_BLOB || d->kind == DAMAGE_OLD)
    snprintf(blob, sizeof blob, "blob %016llx%016llx: ", (unsigned long long)d->id.hi,
             (unsigned long long)d->id.lo);
  if (d->backing) snprintf(place, sizeof place, ": block %llu: ", (unsigned long long)d->block);
  log_line(&log->logger, level, "%s%s%s%s%s", d->backing ? d->backing : "", place, shard, blob,
           d->what);
}

void damage_log_report(void *arg, const struct damage *d) {
  struct damage_log *log = arg;
  pthread_mutex_lock(&log->lock);
  if (is_new(log, key_of(d))) {
    atomic_fetch_add_explicit(&log->counts[d->kind], 1, memory_order_relaxed);
    if (d->kind == DAMAGE_LOG && d->changes != DAMAGE_COUNT_UNKNOWN)
      atomic_fetch_add_explicit(&log->lost_changes, d->changes, memory_order_relaxed);
    log_damage(log, d);
    damage_report(&log->sink, d);
  }
  pthread_mutex_unlock(&log->lock);
}
