/* sim_memory.c - see sim_memory.h. */
#include "tests/sim/sim_memory.h"

#include <stdlib.h>
#include <string.h>

#include "shards/survivor.h"

static struct sim_memory *memory_of(struct survivors_place *p) {
  return container_of(p, struct sim_memory, place);
}

static struct survivor *area(char *memory, uint32_t shard) {
  return (struct survivor *)(void *)(memory + BLOCK_BYTES) + shard;
}

/* Most worlds need none of it. */
static void take(struct sim_memory *m) {
  if (m->now) return;
  m->now = aligned_alloc(BLOCK_BYTES, survivors_bytes(m->shards));
  m->next = aligned_alloc(BLOCK_BYTES, survivors_bytes(m->shards));
  check(m->now && m->next);
}

static void *find(struct survivors_place *p, uint64_t bytes) {
  struct sim_memory *m = memory_of(p);
  check(bytes == survivors_bytes(m->shards));
  m->made = m->settled = false;
  take(m);
  return m->there ? m->now : NULL;
}

static void *make(struct survivors_place *p, uint64_t bytes) {
  struct sim_memory *m = memory_of(p);
  (void)bytes;
  memset(m->next, 0, BLOCK_BYTES);
  for (uint32_t s = 0; s < m->shards; s++)
    memset(area(m->next, s), 0, offsetof(struct survivor, bytes));
  m->made = true;
  return m->next;
}

static void settle(struct survivors_place *p) {
  struct sim_memory *m = memory_of(p);
  char *old = m->now;
  m->now = m->next;
  m->next = old;
  m->there = m->settled = m->made;
}

static void close_memory(struct survivors_place *p) {
  struct sim_memory *m = memory_of(p);
  if (m->settled) m->there = false;
  m->made = m->settled = false;
}

void sim_memory_create(struct sim_memory *m, uint32_t shards) {
  *m = (struct sim_memory){.place = {"memory", find, make, settle, close_memory}, .shards = shards};
}

void sim_memory_destroy(struct sim_memory *m) {
  free(m->now);
  free(m->next);
}

bool sim_memory_counts(const struct sim_memory *m) {
  bool counts = m->there && !survivors_is_marked(m->now);
  for (uint32_t s = 0; counts && s < m->shards; s++) counts = !area(m->now, s)->failed;
  return counts;
}

void sim_memory_copy(struct sim_memory *to, const struct sim_memory *from) {
  to->there = from->there;
  if (!from->there) return;
  take(to);
  memcpy(to->now, from->now, BLOCK_BYTES);
  for (uint32_t s = 0; s < from->shards; s++) {
    const struct survivor *a = area(from->now, s);
    struct survivor *b = area(to->now, s);
    memcpy(b, a, offsetof(struct survivor, bytes));
    for (uint32_t i = 0; i < LOG_BUFFERS; i++) /* what an empty buffer has is of no use */
      memcpy(b->bytes[i] + FRAME_HEADER_BYTES, a->bytes[i] + FRAME_HEADER_BYTES,
             a->buffers[i].filled >> 32);
  }
}
