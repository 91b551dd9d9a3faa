/* recover_survived.c - what a killed process had completed and not yet written to the log, out of
 * its buffers: applied as if it had been in the log, and put into this process's own buffers, from
 * which it goes there. Synchronous, with the rest of recovery.
 *
 * The buffers begin where the frames on disk end, or before: a write that was under way may be on
 * disk in part or in full. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shards/recover.h"

static int adopt(struct manifest *m, const char *bytes, uint32_t size, const char **what) {
  struct entry e;
  uint32_t n = log_entry_decode(&e, bytes, size, m->config.region->blocks, what);
  if (!n) return -EBADMSG;
  int r = recover_apply_entry(m, &e, m->sequence, what);
  if (r) return r;
  memcpy(manifest_log_place(m, n), bytes, n);
  manifest_log_added(m, n, UNVERIFIABLE);
  m->sequence++;
  return (int)n;
}

/* Entries of one buffer from m->sequence on. */
static int adopt_buffer(struct manifest *m, const char *payload, uint64_t first, uint32_t size,
                        uint32_t count, const char **what) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct entry e;
    uint32_t n = log_entry_decode(&e, payload + at, size - at, m->config.region->blocks, what);
    if (!n) return -EBADMSG;
    if (first + i == m->sequence) {
      int r = adopt(m, payload + at, size - at, what);
      if (r < 0) return r;
    }
    at += n;
  }
  return 0;
}

/* The buffer that has the next entry; LOG_BUFFERS: none. */
static uint32_t find_next(const struct manifest *m) {
  const struct survivor *s = m->config.survived;
  uint32_t i = 0;
  for (; i < LOG_BUFFERS; i++) {
    uint64_t first = s->buffers[i].sequence;
    uint32_t count = (uint32_t)s->buffers[i].filled;
    if (first <= m->sequence && m->sequence - first < count) break;
  }
  return i;
}

int recover_survived(struct manifest *m, char *why, size_t why_bytes) {
  const struct survivor *s = m->config.survived;
  const char *what = "";
  int r = 0;
  m->recovering = true;
  for (uint32_t i; r == 0 && (i = find_next(m)) < LOG_BUFFERS;) {
    uint64_t filled = s->buffers[i].filled, before = m->sequence;
    uint32_t size = (uint32_t)(filled >> 32);
    what = "impossible size";
    r = size <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES ? 0 : -EBADMSG;
    if (r == 0)
      r = adopt_buffer(m, s->bytes[i] + FRAME_HEADER_BYTES, s->buffers[i].sequence, size,
                       (uint32_t)filled, &what);
    check(r < 0 || m->sequence > before);
  }
  m->recovering = false;
  if (r < 0)
    snprintf(why, why_bytes, "what a killed process has left in memory, change %llu: %s",
             (unsigned long long)m->sequence, what);
  return r;
}
