/* sim_model.c - see sim_model.h. */
#include "tests/sim/sim_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/base.h"
#include "tests/sim/sim_random.h"

#define HISTORY 256u /* versions before the floor that are kept */

void model_create(struct model *m, uint64_t seed, uint32_t id_count) {
  check(id_count <= MODEL_IDS_MAX);
  *m = (struct model){.seed = seed, .id_count = id_count};
  for (uint32_t i = 0; i < id_count; i++) {
    struct row *r = &m->rows[i];
    r->room = 8;
    r->versions = malloc(r->room * sizeof *r->versions);
    check(r->versions != NULL);
    r->versions[0] = (struct version){.absent = true, .outcome = DONE};
    r->count = 1;
  }
}

void model_destroy(struct model *m) {
  for (uint32_t i = 0; i < m->id_count; i++) free(m->rows[i].versions);
  free(m->batches);
}

void model_fill(const struct model *m, uint32_t id, uint32_t content, void *buf, uint64_t bytes) {
  struct random r = {m->seed ^ ((uint64_t)id << 40) ^ ((uint64_t)content << 8)};
  r.state = random_next(&r);
  char *at = buf;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    uint64_t word = random_next(&r);
    memcpy(at, &word, 8);
  }
  uint64_t word = random_next(&r);
  memcpy(at, &word, bytes);
}

uint32_t model_begin(struct model *m, uint32_t id, bool absent, uint64_t bytes) {
  struct row *r = &m->rows[id];
  /* What a request in flight can still see is kept: none sees that many versions go by. */
  uint32_t old = r->floor - r->first > HISTORY ? r->floor - r->first - HISTORY : 0;
  if (r->count == r->room && old >= r->room / 2) {
    memmove(r->versions, r->versions + old, (r->count - old) * sizeof *r->versions);
    r->first += old;
    r->count -= old;
  } else if (r->count == r->room) {
    r->room *= 2;
    r->versions = realloc(r->versions, r->room * sizeof *r->versions);
    check(r->versions != NULL);
  }
  uint32_t v = r->first + r->count++;
  check(v - r->floor < MODEL_SPAN);
  r->versions[v - r->first] =
      (struct version){.absent = absent, .outcome = IN_FLIGHT, .content = v, .bytes = bytes};
  r->in_flight++;
  return v;
}

void model_end(struct model *m, uint32_t id, uint32_t v, int64_t result, bool durable) {
  struct row *r = &m->rows[id];
  struct version *version = &r->versions[v - r->first];
  check(v >= r->first && version->outcome == IN_FLIGHT);
  version->outcome = result == 0 ? DONE : result == -EIO ? UNKNOWN : FAILED;
  r->in_flight--;
  if (result == 0 && v > r->visible) r->visible = v;
  if (result == 0 && durable && v > r->floor) r->floor = v;
}

void model_batch(struct model *m, const struct batch_record *batch) {
  if (m->batch_count == m->batch_room) {
    m->batch_room = m->batch_room ? 2 * m->batch_room : 16;
    m->batches = realloc(m->batches, m->batch_room * sizeof *m->batches);
    check(m->batches != NULL);
  }
  m->batches[m->batch_count++] = *batch;
}

void model_flushed(struct model *m, const uint32_t visible[]) {
  for (uint32_t i = 0; i < m->id_count; i++)
    if (visible[i] > m->rows[i].floor) m->rows[i].floor = visible[i];
}

static bool is_version(const struct model *m, uint32_t id, uint32_t v, bool present,
                       const void *buf, uint64_t offset, uint64_t asked, uint64_t bytes) {
  static char expected[MODEL_BYTES_MAX];
  const struct version *version = model_version(m, id, v);
  if (version->outcome == FAILED || version->absent == present) return false;
  if (!present) return true;
  uint64_t there = offset < version->bytes ? min_u64(asked, version->bytes - offset) : 0;
  if (bytes != there) return false;
  model_fill(m, id, version->content, expected, version->bytes);
  return memcmp(expected + (there ? offset : 0), buf, there) == 0;
}

uint64_t model_match_range(const struct model *m, uint32_t id, uint32_t from, uint32_t to,
                           bool present, const void *buf, uint64_t offset, uint64_t asked,
                           uint64_t bytes) {
  uint64_t mask = 0;
  check(from >= m->rows[id].first && to <= model_last(m, id) && to - from < MODEL_SPAN);
  for (uint32_t v = from; v <= to; v++)
    if (is_version(m, id, v, present, buf, offset, asked, bytes)) mask |= UINT64_C(1) << (v - from);
  return mask;
}

uint64_t model_match(const struct model *m, uint32_t id, uint32_t from, uint32_t to, bool present,
                     const void *buf, uint64_t bytes) {
  uint64_t mask = 0;
  check(from >= m->rows[id].first && to <= model_last(m, id) && to - from < MODEL_SPAN);
  for (uint32_t v = from; v <= to; v++) {
    const struct version *version = model_version(m, id, v);
    if (present && version->bytes != bytes) continue; /* a range would not tell the length */
    if (is_version(m, id, v, present, buf, 0, bytes, bytes)) mask |= UINT64_C(1) << (v - from);
  }
  return mask;
}

const struct batch_record *model_torn_batch(const struct model *m, const uint64_t found[]) {
  for (uint32_t b = 0; b < m->batch_count; b++) {
    const struct batch_record *batch = &m->batches[b];
    bool in = false, out = false;
    for (uint32_t i = 0; i < batch->count; i++) {
      uint32_t oldest = model_oldest(m, batch->id[i]);
      if (batch->version[i] < oldest) continue; /* overtaken by something that survives */
      uint64_t mask = found[batch->id[i]], own = UINT64_C(1) << (batch->version[i] - oldest);
      if (model_version(m, batch->id[i], batch->version[i])->outcome == FAILED) continue;
      in |= mask == own;
      out |= mask != 0 && mask < own; /* only older ones match */
    }
    if (in && out) return batch;
  }
  return NULL;
}

void model_collapse(struct model *m, uint32_t id, uint32_t v) {
  struct row *r = &m->rows[id];
  struct version version = *model_version(m, id, v);
  version.outcome = DONE;
  r->first = r->floor = r->visible = model_last(m, id); /* the numbers go on */
  r->versions[0] = version;
  r->count = 1;
  r->in_flight = 0;
}

void model_forget_batches(struct model *m) { m->batch_count = 0; }
