/* volume_copy.c - see volume_copy.h. The slots are a ring: the next one to be used is the oldest.
 */
#include "tools/volume_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNIT        4096u
#define NOTE        0u                   /* in place of enum sr_op */
#define ZEROS_BYTES (UINT64_C(64) << 20) /* of one request: the others get their turn */
#define GAP_BYTES   32768u               /* fewer zeros are written: a second request costs more */

int copy_begin(struct copy *c, struct sr_store *store, struct sr_port *port,
               struct sr_block *block) {
  *c = (struct copy){.store = store, .port = port, .block = block};
  if (posix_memalign((void **)&c->slots, _Alignof(struct copy_slot),
                     COPY_DEPTH * sizeof(*c->slots))) {
    c->slots = NULL;
    return -ENOMEM;
  }
  memset(c->slots, 0, COPY_DEPTH * sizeof(*c->slots));
  for (uint32_t i = 0; i < COPY_DEPTH; i++) {
    c->slots[i].buf = sr_buffer_alloc(store, COPY_BYTES, false);
    if (!c->slots[i].buf) return copy_end(c), -ENOMEM;
  }
  return 0;
}

static void fail(struct copy *c, int error, uint64_t at, bool sink) {
  if (c->error) return;
  c->error = error;
  c->failed_at = at;
  c->sink_failed = sink;
}

static void reap(struct copy *c) {
  struct sr_request *done[COPY_DEPTH];
  int n = sr_port_reap(c->port, done, COPY_DEPTH);
  for (int i = 0; i < n; i++) ((struct copy_slot *)done[i]->user)->busy = false;
  if (n == 0) sr_port_wait(c->port, -1);
}

/* Waits for a slot's request and gives a read to the sink. */
static void retire(struct copy *c, struct copy_slot *s) {
  const struct sr_request *r = &s->request;
  while (s->busy) reap(c);
  if (!s->used) return;
  s->used = false;
  if (r->result < 0)
    fail(c, (int)r->result, r->offset, false);
  else if ((uint64_t)r->result != r->bytes)
    fail(c, -EIO, r->offset, false);
  else if (!c->error && (r->op == SR_OP_READ || r->op == NOTE)) {
    int e = c->sink(c->arg, r->offset, r->op == NOTE ? NULL : s->buf, r->bytes);
    if (e < 0) fail(c, e, r->offset, true);
  }
}

static int submit(struct copy *c, uint32_t op, char *buf, uint64_t offset, uint64_t bytes) {
  struct copy_slot *s = c->slots + c->next;
  struct sr_request *r = &s->request;
  int n = 1;
  retire(c, s);
  if (c->error) return c->error;
  *r = (struct sr_request){.op = op, .buf = buf, .result = (int64_t)bytes};
  r->block = c->block;
  r->offset = offset;
  r->bytes = bytes;
  r->user = s;
  while (op != NOTE && (n = sr_port_submit(c->port, &r, 1)) == -EAGAIN) reap(c);
  if (n != 1) {
    fail(c, n < 0 ? n : -EIO, offset, false);
    return c->error;
  }
  s->busy = op != NOTE;
  s->used = true;
  c->next = (c->next + 1) % COPY_DEPTH;
  return 0;
}

int copy_read(struct copy *c, uint64_t offset, uint32_t bytes) {
  return submit(c, SR_OP_READ, c->slots[c->next].buf, offset, bytes);
}

int copy_note(struct copy *c, uint64_t offset, uint64_t bytes) {
  return submit(c, NOTE, NULL, offset, bytes);
}

char *copy_buffer(struct copy *c) {
  struct copy_slot *s = c->slots + c->next;
  retire(c, s);
  return c->error ? NULL : s->buf;
}

int copy_write(struct copy *c, const char *data, uint64_t offset, uint32_t bytes) {
  return submit(c, SR_OP_WRITE, (char *)(uintptr_t)data, offset, bytes);
}

int copy_zeros(struct copy *c, uint64_t offset, uint64_t bytes) {
  int r = 0;
  while (r == 0 && bytes > 0) {
    uint64_t n = bytes < ZEROS_BYTES ? bytes : ZEROS_BYTES;
    r = submit(c, SR_OP_WRITE_ZEROES, NULL, offset, n);
    offset += n;
    bytes -= n;
  }
  return r;
}

int copy_drain(struct copy *c) {
  for (uint32_t i = 0; i < COPY_DEPTH; i++) retire(c, c->slots + (c->next + i) % COPY_DEPTH);
  return c->error;
}

int copy_end(struct copy *c) {
  int r = c->slots ? copy_drain(c) : c->error;
  for (uint32_t i = 0; c->slots && i < COPY_DEPTH; i++)
    if (c->slots[i].buf) sr_buffer_free(c->store, c->slots[i].buf);
  free(c->slots);
  c->slots = NULL;
  return r;
}

/* ---- Zeros -------------------------------------------------------------------------------------
 */

static bool is_zero(const char *p, uint32_t bytes) {
  return p[0] == 0 && (bytes == 1 || memcmp(p, p + 1, bytes - 1) == 0);
}

uint32_t copy_run(const char *buf, uint32_t bytes, bool *zeros) {
  uint32_t at = 0;
  while (at < bytes) {
    uint32_t n = bytes - at < UNIT ? bytes - at : UNIT;
    bool zero = is_zero(buf + at, n);
    if (at == 0)
      *zeros = zero;
    else if (zero != *zeros)
      break;
    at += n;
  }
  return at;
}

/* How far the first data of buf goes on: up to a gap that is worth a second request. */
static uint32_t data_run(const char *buf, uint32_t bytes) {
  uint32_t at = 0;
  bool zeros;
  while (at < bytes) {
    uint32_t n = copy_run(buf + at, bytes - at, &zeros);
    if (zeros && (n >= GAP_BYTES || at + n == bytes)) break;
    at += n;
  }
  return at;
}

int copy_write_sparse(struct copy *c, const char *data, uint64_t offset, uint32_t bytes) {
  bool zeros;
  while (bytes > 0) {
    uint32_t skip = copy_run(data, bytes, &zeros);
    if (!zeros) skip = 0;
    data += skip, offset += skip, bytes -= skip;
    uint32_t n = data_run(data, bytes);
    if (n == 0) continue;
    int r = copy_write(c, data, offset, n);
    if (r < 0) return r;
    offset += n, bytes -= n;
    char *next = bytes ? copy_buffer(c) : NULL;
    if (bytes && !next) return c->error;
    if (next) memcpy(next, data + n, bytes); /* the first part is in flight, and only read */
    data = next;
  }
  return 0;
}
