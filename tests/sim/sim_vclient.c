/* sim_vclient.c - requests; see sim_vclient.h. */
#include "tests/sim/sim_vclient.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_BYTES (VBYTES_MAX + (VIOV_MAX + 2) * BLOCK_BYTES)

void vclient_create(struct vclient *c, uint64_t seed, struct vmodel *m, struct tolerance *t,
                    uint32_t slot_count) {
  memset(c, 0, sizeof *c);
  c->random.state = seed;
  c->model = m;
  c->tolerance = t;
  c->slot_count = slot_count;
  c->memory = aligned_alloc(BLOCK_BYTES, slot_count * SLOT_BYTES);
  check(c->memory != NULL && slot_count <= VOPS_MAX);
  for (uint32_t i = 0; i < slot_count; i++) c->slots[i].buf = c->memory + i * SLOT_BYTES;
}

void vclient_destroy(struct vclient *c) { free(c->memory); }

void vclient_open(struct vclient *c, struct sr_store *store) {
  c->store = store;
  memset(c->handles, 0, sizeof c->handles);
  if (sr_port_open(store, NULL, &c->port)) sim_violation("no port");
}

void vclient_close(struct vclient *c) {
  for (uint32_t i = 0; i < NODES_MAX; i++) {
    struct vhandle *h = &c->handles[i];
    int r = h->block ? sr_block_close(c->port, h->block) : 0;
    if (r && !c->tolerance->dead) sim_violation("a volume does not close: %s", strerror(-r));
    h->block = NULL;
  }
  int r = sr_port_close(c->port);
  if (r) sim_violation("a port with nothing in flight does not close: %s", strerror(-r));
  c->port = NULL;
}

const char *vkind_name(enum vkind k) {
  static const char *names[] = {"write", "write zeroes", "discard", "read", "sync", "flush"};
  return names[k];
}

/* ---- Asking ---------------------------------------------------------------------------------- */

static enum vkind choose_kind(struct vclient *c) {
  uint32_t sum = 0, k = 0;
  for (uint32_t i = 0; i < V_KINDS; i++) sum += c->habits.weight[i];
  uint64_t dice = random_up_to(&c->random, sum);
  while (dice >= c->habits.weight[k]) dice -= c->habits.weight[k++];
  return (enum vkind)k;
}

static struct vnode *choose_node(struct vclient *c, bool writable) {
  uint32_t from = (uint32_t)random_up_to(&c->random, NODES_MAX);
  for (uint32_t k = 0; k < NODES_MAX; k++) {
    uint32_t i = (from + k) % NODES_MAX;
    struct vhandle *h = &c->handles[i];
    if (h->block && !(writable && h->read_only)) return &c->model->nodes[i];
  }
  return NULL;
}

static struct vhandle *handle_of(struct vclient *c, const struct vnode *n) {
  return &c->handles[n - c->model->nodes];
}

/* In a window: some blocks of it, or some sectors. */
static bool choose_range(struct vclient *c, const struct vnode *n, uint64_t *offset,
                         uint64_t *bytes) {
  const struct vmodel *m = c->model;
  struct random *r = &c->random;
  uint32_t w = (uint32_t)random_up_to(r, WINDOWS);
  uint64_t first = m->window_block[w], size = vnode_last(n)->size_bytes;
  uint64_t count = m->window_first[w + 1] - m->window_first[w];
  uint64_t at = random_up_to(r, count), blocks = 1;
  if (random_percent(r, 50))
    blocks = random_in(r, 1, min_u64(count - at, VBYTES_MAX / BLOCK_BYTES));
  *offset = (first + at) << BLOCK_SHIFT;
  *bytes = blocks << BLOCK_SHIFT;
  if (n->block_bytes < BLOCK_BYTES && random_percent(r, 60)) {
    uint64_t skip = random_up_to(r, CELL_SECTORS) * CELL_SECTOR;
    *offset += skip;
    *bytes -= skip;
    uint64_t less = random_up_to(r, min_u64(CELL_SECTORS, *bytes / CELL_SECTOR)) * CELL_SECTOR;
    *bytes -= less;
  }
  if (*offset >= size) return false;
  *bytes = min_u64(*bytes, size - *offset);
  return true;
}

/* Of what moves no data also far more than a window. */
static void choose_wide(struct vclient *c, const struct vnode *n, uint64_t *offset,
                        uint64_t *bytes) {
  struct random *r = &c->random;
  uint64_t blocks = vnode_last(n)->size_bytes / n->block_bytes;
  uint64_t a = random_up_to(r, blocks + 1), b = random_up_to(r, blocks + 1);
  if (random_percent(r, 30)) a = 0, b = blocks;
  *offset = min_u64(a, b) * n->block_bytes;
  *bytes = (max_u64(a, b) - min_u64(a, b)) * n->block_bytes;
}

/* As a guest's driver: pages here and there. */
static void scatter_pages(struct vclient *c, struct vslot *s) {
  struct random *r = &c->random;
  uint64_t left = s->r.bytes;
  char *at = s->buf;
  uint32_t n = 0;
  while (left > 0) {
    uint64_t bytes = random_in(r, 1, 2) * BLOCK_BYTES;
    bytes = n == VIOV_MAX - 1 ? left : min_u64(left, bytes);
    s->iov[n++] = (struct iovec){at, bytes};
    at += bytes + (random_percent(r, 80) ? BLOCK_BYTES : 0);
    left -= bytes;
  }
  s->r.iov_count = n;
}

/* Cuts the buffer into pieces with gaps between them: a piece for each iovec. */
static void scatter_bytes(struct vclient *c, struct vslot *s) {
  struct random *r = &c->random;
  uint64_t left = s->r.bytes;
  char *at = s->buf;
  uint32_t n = 0;
  while (left > 0) {
    uint64_t bytes = n == VIOV_MAX - 1 ? left : random_in(r, 1, left);
    if (random_percent(r, 60) && n < VIOV_MAX - 1)
      bytes = min_u64(left, round_up(bytes, random_percent(r, 50) ? BLOCK_BYTES : CELL_SECTOR));
    s->iov[n++] = (struct iovec){at, bytes};
    at += bytes + (random_percent(r, 50) ? 0 : random_up_to(r, BLOCK_BYTES));
    if (random_percent(r, 30)) at = (char *)round_up((uintptr_t)at, BLOCK_BYTES);
    left -= bytes;
  }
  s->r.iov_count = n;
}

static void scatter(struct vclient *c, struct vslot *s) {
  if (random_percent(&c->random, 50))
    scatter_pages(c, s);
  else
    scatter_bytes(c, s);
  s->r.flags |= SR_VECTORED;
  s->r.buf = s->iov;
}

static void place(struct vclient *c, struct vslot *s) {
  if (random_percent(&c->random, c->habits.vectored_percent)) {
    scatter(c, s);
    return;
  }
  s->r.buf = s->buf + (random_percent(&c->random, 60) ? 0 : random_up_to(&c->random, BLOCK_BYTES));
}

/* Between the request's memory and bytes in a row. */
static void gather(const struct vslot *s, char *row, bool out) {
  if (!(s->r.flags & SR_VECTORED)) {
    memcpy(out ? s->r.buf : row, out ? row : s->r.buf, s->r.bytes);
    return;
  }
  for (uint64_t i = 0; i < s->r.iov_count; i++) {
    memcpy(out ? s->iov[i].iov_base : row, out ? row : s->iov[i].iov_base, s->iov[i].iov_len);
    row += s->iov[i].iov_len;
  }
}

static char row[VBYTES_MAX];

static bool prepare_write(struct vclient *c, struct vslot *s, uint32_t bit) {
  struct vmodel *m = c->model;
  struct vop *op = &m->ops[bit];
  bool wide = s->kind != V_WRITE && random_percent(&c->random, c->habits.wide_percent);
  *op = (struct vop){.node = s->node, .kind = s->kind};
  if (wide)
    choose_wide(c, s->node, &op->offset, &op->bytes);
  else if (!choose_range(c, s->node, &op->offset, &op->bytes))
    return false;
  if (!op->bytes || !vmodel_may_write(m, s->node, op->offset, op->bytes)) return false;
  static const uint32_t ops[] = {SR_OP_WRITE, SR_OP_WRITE_ZEROES, SR_OP_DISCARD};
  s->r.op = ops[s->kind];
  s->r.offset = op->offset;
  s->r.bytes = op->bytes;
  if (s->kind == V_WRITE) {
    op->stamp = ++m->stamp;
    place(c, s);
    vmodel_fill(m, op->stamp, op->offset, row, op->bytes);
    gather(s, row, true);
  }
  if (s->kind != V_DISCARD && random_percent(&c->random, c->habits.durable_percent))
    s->r.flags |= SR_DURABLE;
  vmodel_begin(m, bit);
  return true;
}

static bool prepare_read(struct vclient *c, struct vslot *s) {
  s->r.op = SR_OP_READ;
  if (!choose_range(c, s->node, &s->r.offset, &s->r.bytes)) return false;
  place(c, s);
  s->content = vnode_last(s->node)->content;
  return true;
}

static bool prepare(struct vclient *c, struct vslot *s, uint32_t bit) {
  memset(&s->r, 0, sizeof s->r);
  s->kind = choose_kind(c);
  s->node = NULL;
  s->r.user = s;
  s->since = c->model->clock;
  if (s->kind == V_FLUSH) {
    s->r.op = SR_OP_FLUSH;
    return true;
  }
  s->node = choose_node(c, s->kind <= V_DISCARD);
  if (!s->node) return false;
  s->r.block = handle_of(c, s->node)->block;
  if (s->kind == V_READ) return prepare_read(c, s);
  if (s->kind != V_SYNC) return prepare_write(c, s, bit);
  s->r.op = SR_OP_SYNC;
  return true;
}

static void note_oldest_read(struct vclient *c) {
  c->model->oldest_read = NEVER;
  for (uint32_t i = 0; i < c->slot_count; i++)
    if (c->slots[i].busy && c->slots[i].kind == V_READ)
      c->model->oldest_read = min_u64(c->model->oldest_read, c->slots[i].since);
}

bool vclient_submit(struct vclient *c) {
  uint32_t bit = 0;
  while (bit < c->slot_count && c->slots[bit].busy) bit++;
  struct vslot *s = &c->slots[bit];
  if (bit == c->slot_count || !prepare(c, s, bit)) return false;
  struct sr_request *list[1] = {&s->r};
  int n = sr_port_submit(c->port, list, 1);
  if (n != 1) sim_violation("submit: %s", strerror(-n));
  s->busy = true;
  sim_trace("%llu: %s %s [%llu, +%llu) blocks %llu+%llu flags %u: write %u, asked\n",
            (unsigned long long)c->model->clock, vkind_name(s->kind),
            s->node ? vnode_last(s->node)->name : "-", (unsigned long long)s->r.offset,
            (unsigned long long)s->r.bytes, (unsigned long long)(s->r.offset >> BLOCK_SHIFT),
            (unsigned long long)bytes_to_blocks(s->r.bytes), s->r.flags, c->model->ops[bit].stamp);
  if (s->node) handle_of(c, s->node)->in_flight++;
  c->in_flight++;
  c->submitted++;
  note_oldest_read(c);
  return true;
}

/* ---- Results --------------------------------------------------------------------------------- */

static void unexpected(const struct vslot *s) {
  sim_violation("%s of volume %s [%llu, +%llu), flags %u: %lld (%s)", vkind_name(s->kind),
                s->node ? vnode_last(s->node)->name : "-", (unsigned long long)s->r.offset,
                (unsigned long long)s->r.bytes, s->r.flags, (long long)s->r.result,
                s->r.result < 0 ? strerror((int)-s->r.result) : "");
}

static bool tolerated(const struct vclient *c, int64_t result) {
  return result == -EIO && c->tolerance->io_errors;
}

static void end_read(struct vclient *c, const struct vslot *s) {
  struct vmodel *m = c->model;
  uint64_t offset = s->r.offset, bytes = s->r.bytes;
  if (tolerated(c, s->r.result)) return;
  if (s->r.result != (int64_t)bytes) unexpected(s);
  gather(s, row, false);
  for (uint32_t i = vmodel_first_cell(m, offset); i < m->cell_count; i++) {
    uint8_t mask = vmodel_sectors(m, i, offset, bytes);
    uint64_t at = vmodel_cell_block(m, i) << BLOCK_SHIFT;
    uint32_t stamps[CELL_SECTORS] = {0};
    if (!mask) break;
    for (uint32_t k = 0; k < CELL_SECTORS; k++) {
      uint64_t sector = at + k * CELL_SECTOR;
      if (mask >> k & 1) stamps[k] = vmodel_decode(m, sector, row + (sector - offset));
    }
    if (!vmodel_may_read(m, s->content, i, mask, stamps, s->since))
      sim_violation("read of volume %s [%llu, +%llu): block %llu is not what it was at any time "
                    "since (write %d of it, ...)",
                    vnode_last(s->node)->name, (unsigned long long)offset,
                    (unsigned long long)bytes, (unsigned long long)(at >> BLOCK_SHIFT),
                    (int)stamps[__builtin_ctz(mask)]);
    if (s->node->sealed) vmodel_settle(m, s->content, i, mask, stamps);
  }
}

static void end_request(struct vclient *c, struct vslot *s, uint32_t bit) {
  int64_t r = s->r.result;
  bool done = r == (int64_t)s->r.bytes;
  switch (s->kind) {
  case V_READ:
    end_read(c, s);
    break;
  case V_SYNC:
  case V_FLUSH:
    if (r && !tolerated(c, r)) unexpected(s);
    if (!r) vmodel_cover(c->model, s->node, s->since);
    break;
  default:
    if (!done && r != -ENOSPC && !tolerated(c, r)) unexpected(s);
    c->refused += r == -ENOSPC;
    vmodel_end(c->model, bit, done, s->r.flags & SR_DURABLE);
  }
}

uint32_t vclient_reap(struct vclient *c) {
  struct sr_request *out[VOPS_MAX];
  int n = sr_port_reap(c->port, out, VOPS_MAX);
  if (n < 0) sim_violation("reap: %s", strerror(-n));
  for (int i = 0; i < n; i++) {
    struct vslot *s = out[i]->user;
    sim_trace("%llu: %s %s [%llu, +%llu): write %u: %lld\n", (unsigned long long)c->model->clock,
              vkind_name(s->kind), s->node ? vnode_last(s->node)->name : "-",
              (unsigned long long)s->r.offset, (unsigned long long)s->r.bytes,
              c->model->ops[s - c->slots].stamp, (long long)s->r.result);
    if (!c->tolerance->dead) end_request(c, s, (uint32_t)(s - c->slots));
    s->busy = false;
    if (s->node) handle_of(c, s->node)->in_flight--;
    c->in_flight--;
    c->finished++;
  }
  note_oldest_read(c);
  return (uint32_t)n;
}
