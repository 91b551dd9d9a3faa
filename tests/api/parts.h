/* parts.h - the parts of an atomic batch, for tests. Include after "tests/api/fixture.h". */
#ifndef TESTS_API_PARTS_H
#define TESTS_API_PARTS_H

#include "tests/api/fixture.h"

/* Parts of a batch, in memory of their own. */
struct parts {
  struct sr_request *request;
  struct sr_request **list;
  uint32_t count;
};
static inline struct parts make_parts(uint32_t max) {
  struct parts p = {aligned_alloc(64, max * sizeof(struct sr_request)),
                    calloc(max, sizeof(struct sr_request *)), 0};
  assert_true(p.request && p.list);
  return p;
}
static inline void free_parts(struct parts *p) {
  free(p->request);
  free(p->list);
}
static inline void add_part(struct parts *p, uint32_t op, struct sr_id id, const void *buf,
                            uint64_t bytes) {
  struct sr_request *r = &p->request[p->count];
  *r = request_of_op(op, 0, (void *)(uintptr_t)buf, bytes);
  r->id = id;
  p->list[p->count++] = r;
}
static inline void add_put(struct parts *p, uint64_t id, const char *value) {
  add_part(p, SR_OP_PUT, id_of(id), value, strlen(value));
}
static inline void add_delete(struct parts *p, uint64_t id) {
  add_part(p, SR_OP_DELETE, id_of(id), NULL, 0);
}

static inline uint64_t id_in(struct sr_store *s, uint32_t shard, uint64_t from) {
  while (sr_shard_of(s, id_of(from)) != shard) from++;
  return from;
}

#endif
