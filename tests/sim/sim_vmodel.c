/* sim_vmodel.c - see sim_vmodel.h. */
#include "tests/sim/sim_vmodel.h"

#include <stdlib.h>
#include <string.h>

/* ---- Shape -------------------------------------------------------------------------------------
 */

/* At the beginning, across the end of a leaf, and further out. */
void vmodel_create(struct vmodel *m, uint64_t seed, struct random *r) {
  memset(m, 0, sizeof *m);
  m->seed = seed;
  m->clock = 1;
  m->oldest_read = NEVER;
  uint32_t n[WINDOWS] = {(uint32_t)random_in(r, 4, 40), (uint32_t)random_in(r, 4, 32),
                         (uint32_t)random_in(r, 2, 20)};
  m->window_block[0] = random_up_to(r, 17);
  m->window_block[1] = 1024 - random_up_to(r, n[1] + 1);
  m->window_block[2] = 1024 + 64 + random_up_to(r, 1100);
  for (uint32_t i = 0; i < WINDOWS; i++) m->window_first[i + 1] = m->window_first[i] + n[i];
  m->cell_count = m->window_first[WINDOWS];
}

uint64_t vmodel_cell_block(const struct vmodel *m, uint32_t cell) {
  uint32_t w = 0;
  while (cell >= m->window_first[w + 1]) w++;
  return m->window_block[w] + cell - m->window_first[w];
}

uint32_t vmodel_first_cell(const struct vmodel *m, uint64_t offset) {
  uint32_t c = 0;
  while (c < m->cell_count && (vmodel_cell_block(m, c) + 1) << BLOCK_SHIFT <= offset) c++;
  return c;
}

uint8_t vmodel_sectors(const struct vmodel *m, uint32_t cell, uint64_t offset, uint64_t bytes) {
  uint64_t at = vmodel_cell_block(m, cell) << BLOCK_SHIFT, end = at + BLOCK_BYTES;
  uint64_t from = max_u64(at, offset), to = min_u64(end, offset + bytes);
  if (from >= to) return 0;
  uint32_t first = (uint32_t)(from - at) / CELL_SECTOR, n = (uint32_t)(to - from) / CELL_SECTOR;
  return (uint8_t)(((1u << n) - 1) << first);
}

/* ---- Bytes -------------------------------------------------------------------------------------
 */

static void make_sector(const struct vmodel *m, uint32_t stamp, uint64_t offset, uint64_t *words) {
  struct random r = {m->seed ^ ((uint64_t)stamp << 32) ^ offset};
  uint64_t step = random_next(&r) | 1, at = random_next(&r);
  words[0] = stamp;
  for (uint32_t i = 1; i < CELL_SECTOR / 8; i++) words[i] = at += step;
}

void vmodel_fill(const struct vmodel *m, uint32_t stamp, uint64_t offset, void *buf,
                 uint64_t bytes) {
  uint64_t words[CELL_SECTOR / 8];
  for (uint64_t i = 0; i < bytes; i += CELL_SECTOR) {
    make_sector(m, stamp, offset + i, words);
    memcpy((char *)buf + i, words, sizeof words);
  }
}

uint32_t vmodel_decode(const struct vmodel *m, uint64_t offset, const void *sector) {
  uint64_t words[CELL_SECTOR / 8], first;
  memcpy(&first, sector, sizeof first);
  if (first > m->stamp) return NO_STAMP;
  if (first)
    make_sector(m, (uint32_t)first, offset, words);
  else
    memset(words, 0, sizeof words);
  return memcmp(words, sector, sizeof words) == 0 ? (uint32_t)first : NO_STAMP;
}

/* ---- Cells -------------------------------------------------------------------------------------
 */

static bool same_state(const struct cell_state *a, const struct cell_state *b) {
  return a->applied == b->applied && a->last == b->last &&
         memcmp(a->stamp, b->stamp, sizeof a->stamp) == 0;
}

static uint64_t covered_of(const struct vmodel *m, const struct content *c) {
  return max_u64(c->covered, max_u64(m->covered, m->killed));
}

static void cell_prune(const struct vmodel *m, const struct content *c, struct cell *x) {
  uint64_t covered = covered_of(m, c);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < x->count; i++) {
    struct cell_state s = x->states[i];
    if (s.died > m->oldest_read || (s.died > covered && !s.gone)) x->states[kept++] = s;
  }
  x->count = kept;
}

static void cell_add(struct cell *x, const struct cell_state *s) {
  if (x->count == x->room) {
    x->room = x->room ? 2 * x->room : 2;
    x->states = realloc(x->states, x->room * sizeof *x->states);
    check(x->states != NULL);
  }
  x->states[x->count++] = *s;
}

static bool cell_lives_as(const struct cell *x, const struct cell_state *s) {
  for (uint32_t i = 0; i < x->count; i++)
    if (x->states[i].died == NEVER && same_state(&x->states[i], s)) return true;
  return false;
}

/* Writes to a volume on one shard take effect in the order in which they were submitted, if they do
 * not fail. */
static bool may_apply(const struct vmodel *m, const struct cell_state *s, uint32_t bit) {
  const struct vop *op = &m->ops[bit];
  return !(s->applied >> bit & 1) && (op->node->striped || op->number > s->last);
}

static void apply(const struct vmodel *m, uint32_t cell, uint32_t bit, struct cell_state *s) {
  const struct vop *op = &m->ops[bit];
  uint8_t mask = vmodel_sectors(m, cell, op->offset, op->bytes);
  s->applied |= 1u << bit;
  s->last = max_u64(s->last, op->number);
  if (op->kind == V_DISCARD && mask != 0xff) return; /* a block in part: it stays */
  for (uint32_t i = 0; i < CELL_SECTORS; i++)
    if (mask >> i & 1) s->stamp[i] = op->kind == V_WRITE ? op->stamp : 0;
}

/* All that can come of what lives and of the writes in flight. */
static void cell_close(struct vmodel *m, struct cell *x, uint32_t cell) {
  for (uint32_t i = 0; i < x->count; i++) {
    if (x->states[i].died != NEVER) continue;
    for (uint32_t k = 0; k < VOPS_MAX; k++) {
      if (!(x->pending >> k & 1) || !may_apply(m, &x->states[i], k)) continue;
      struct cell_state s = x->states[i];
      apply(m, cell, k, &s);
      s.born = m->clock;
      if (!cell_lives_as(x, &s)) cell_add(x, &s);
    }
  }
}

/* Without the bit some states are the same. */
static void cell_forget_bit(struct cell *x, uint32_t bit) {
  uint32_t kept = 0;
  x->pending &= ~(1u << bit);
  for (uint32_t i = 0; i < x->count; i++) {
    x->states[i].applied &= ~(1u << bit);
    if (!x->pending) x->states[i].last = 0;
  }
  for (uint32_t i = 0; i < x->count; i++) {
    bool again = false;
    for (uint32_t k = 0; k < kept && !again; k++)
      again = x->states[i].died == NEVER && x->states[k].died == NEVER &&
              same_state(&x->states[i], &x->states[k]);
    if (!again) x->states[kept++] = x->states[i];
  }
  x->count = kept;
}

bool vmodel_may_write(const struct vmodel *m, const struct vnode *n, uint64_t offset,
                      uint64_t bytes) {
  const struct content *c = vnode_last(n)->content;
  for (uint32_t i = vmodel_first_cell(m, offset); i < m->cell_count; i++) {
    if (!vmodel_sectors(m, i, offset, bytes)) break;
    const struct cell *x = &c->cells[i];
    if (x->count > CELL_STATES || (uint32_t)__builtin_popcount(x->pending) >= CELL_VOPS_MAX)
      return false;
  }
  return true;
}

static uint64_t numbers;

void vmodel_begin(struct vmodel *m, uint32_t bit) {
  struct vop *op = &m->ops[bit];
  op->number = ++numbers;
  op->content = vnode_last(op->node)->content;
  m->clock++;
  m->changes++;
  for (uint32_t i = 0; i < m->cell_count; i++) {
    struct cell *x = &op->content->cells[i];
    if (!vmodel_sectors(m, i, op->offset, op->bytes)) continue;
    cell_prune(m, op->content, x);
    x->pending |= 1u << bit;
    cell_close(m, x, i);
  }
}

void vmodel_end(struct vmodel *m, uint32_t bit, bool done, bool durable) {
  const struct vop *op = &m->ops[bit];
  m->clock++;
  m->changes++;
  for (uint32_t i = 0; i < m->cell_count; i++) {
    struct cell *x = &op->content->cells[i];
    if (!(x->pending >> bit & 1)) continue;
    for (uint32_t k = 0; k < x->count && done; k++) {
      struct cell_state *state = &x->states[k];
      if (state->applied >> bit & 1) continue;
      if (state->died == NEVER) state->died = m->clock;
      state->gone |= durable;
    }
    cell_forget_bit(x, bit);
  }
}

static bool fits(const struct cell_state *s, uint8_t mask, const uint32_t stamps[CELL_SECTORS]) {
  for (uint32_t i = 0; i < CELL_SECTORS; i++)
    if (mask >> i & 1 && s->stamp[i] != stamps[i]) return false;
  return true;
}

bool vmodel_may_read(const struct vmodel *m, const struct content *c, uint32_t cell, uint8_t mask,
                     const uint32_t stamps[CELL_SECTORS], uint64_t since) {
  const struct cell *x = &c->cells[cell];
  (void)m;
  for (uint32_t i = 0; i < x->count; i++)
    if (x->states[i].died > since && fits(&x->states[i], mask, stamps)) return true;
  return false;
}

void vmodel_settle(struct vmodel *m, struct content *c, uint32_t cell, uint8_t mask,
                   const uint32_t stamps[CELL_SECTORS]) {
  struct cell *x = &c->cells[cell];
  uint32_t kept = 0;
  for (uint32_t i = 0; i < x->count; i++)
    if (fits(&x->states[i], mask, stamps)) x->states[kept++] = x->states[i];
  m->changes += kept != x->count;
  x->count = kept;
}

void vmodel_cover(struct vmodel *m, struct vnode *n, uint64_t at) {
  m->changes++;
  if (!n) {
    m->covered = max_u64(m->covered, at);
    return;
  }
  struct content *c = vnode_last(n)->content;
  c->covered = max_u64(c->covered, at);
  n->covered = max_u64(n->covered, at);
  for (uint32_t i = 0; i < NODES_MAX; i++) {
    struct vnode *s = &m->nodes[i];
    if (s->used && s->origin == n && s->made && s->made <= at)
      s->covered = max_u64(s->covered, s->made);
  }
}

/* ---- Contents ----------------------------------------------------------------------------------
 */

struct content *content_ref(struct content *c) {
  if (c) c->refs++;
  return c;
}

void content_unref(struct content *c) {
  if (!c || --c->refs) return;
  for (uint32_t i = 0; i < CELLS_MAX; i++) free(c->cells[i].states);
  free(c);
}

struct content *content_copy(struct vmodel *m, const struct content *from, uint64_t blocks) {
  struct content *c = calloc(1, sizeof *c);
  check(c != NULL);
  c->refs = 1;
  for (uint32_t i = 0; i < m->cell_count; i++) {
    struct cell_state zeros = {.born = m->clock, .died = NEVER};
    bool inside = from && vmodel_cell_block(m, i) < blocks;
    if (!inside) cell_add(&c->cells[i], &zeros);
    for (uint32_t k = 0; inside && k < from->cells[i].count; k++) {
      struct cell_state s = from->cells[i].states[k];
      if (s.died != NEVER) continue;
      s.applied = 0;
      s.last = 0;
      s.gone = false;
      s.born = m->clock;
      if (!cell_lives_as(&c->cells[i], &s)) cell_add(&c->cells[i], &s);
    }
  }
  return c;
}

uint64_t content_trim(struct vmodel *m, struct content *c, uint64_t blocks) {
  struct cell_state zeros = {.born = ++m->clock, .died = NEVER};
  m->changes++;
  for (uint32_t i = 0; i < m->cell_count; i++)
    if (vmodel_cell_block(m, i) >= blocks && !cell_lives_as(&c->cells[i], &zeros))
      cell_add(&c->cells[i], &zeros);
  return m->clock;
}

void content_trimmed(struct vmodel *m, struct content *c, uint64_t blocks, uint64_t begun,
                     bool done) {
  struct cell_state zeros = {0};
  m->clock++;
  m->changes++;
  for (uint32_t i = 0; i < m->cell_count; i++) {
    struct cell *x = &c->cells[i];
    uint32_t kept = 0;
    if (vmodel_cell_block(m, i) < blocks) continue;
    for (uint32_t k = 0; k < x->count; k++) {
      struct cell_state s = x->states[k];
      if (!done && s.born == begun) continue;
      if (done && s.died == NEVER && !same_state(&s, &zeros)) s.died = m->clock;
      x->states[kept++] = s;
    }
    x->count = kept;
  }
}

void vversion_set_content(struct vversion *v, struct content *c) {
  content_unref(v->content);
  v->content = c;
}

/* ---- Nodes -------------------------------------------------------------------------------------
 */

static void node_free(struct vmodel *m, struct vnode *n) {
  for (uint32_t i = 0; i < n->version_count; i++) content_unref(n->versions[i].content);
  free(n->versions);
  *n = (struct vnode){0};
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (m->nodes[i].origin == n) m->nodes[i].origin = NULL;
}

void vmodel_destroy(struct vmodel *m) {
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (m->nodes[i].used) node_free(m, &m->nodes[i]);
}

static void version_add(struct vnode *n, const struct vversion *v) {
  n->versions = realloc(n->versions, (n->version_count + 1) * sizeof *n->versions);
  check(n->versions != NULL);
  n->versions[n->version_count++] = *v;
}

struct vnode *vmodel_node(struct vmodel *m) {
  for (uint32_t i = 0; i < NODES_MAX; i++) {
    struct vnode *n = &m->nodes[i];
    if (n->used) continue;
    n->used = true;
    version_add(n, &(struct vversion){.died = NEVER});
    return n;
  }
  return NULL;
}

struct vversion *vmodel_change(struct vmodel *m, struct vnode *n) {
  struct vversion v = *vnode_last(n);
  m->clock++;
  m->changes++;
  content_ref(v.content);
  v.born = m->clock;
  version_add(n, &v);
  return vnode_last(n);
}

void vmodel_changed(struct vmodel *m, struct vnode *n, bool done) {
  struct vversion *v = vnode_last(n);
  m->clock++;
  m->changes++;
  if (done) {
    v[-1].died = m->clock;
    return;
  }
  content_unref(v->content);
  n->version_count--;
  if (n->version_count == 1 && !vnode_last(n)->there) node_free(m, n);
}

struct vnode *vmodel_find(struct vmodel *m, const char *name) {
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (vnode_there(&m->nodes[i]) && strcmp(vnode_last(&m->nodes[i])->name, name) == 0)
      return &m->nodes[i];
  return NULL;
}

bool vmodel_may_be(const struct vmodel *m, const struct vnode *n, const struct vversion *v) {
  return v->died > max_u64(n->covered, max_u64(m->covered, m->killed));
}

void vmodel_sweep(struct vmodel *m) {
  for (uint32_t i = 0; i < NODES_MAX; i++) {
    struct vnode *n = &m->nodes[i];
    if (!n->used || vnode_there(n)) continue;
    bool gone = true;
    for (uint32_t k = 0; k < n->version_count; k++)
      gone &= !n->versions[k].there || !vmodel_may_be(m, n, &n->versions[k]);
    if (gone) node_free(m, n);
  }
}

/* ---- After a power cut -------------------------------------------------------------------------
 */

static bool may_find(const struct vmodel *m, const struct content *c, uint32_t cell, uint8_t mask,
                     const uint32_t stamps[CELL_SECTORS]) {
  const struct cell *x = &c->cells[cell];
  for (uint32_t i = 0; i < x->count; i++)
    if (x->states[i].died > covered_of(m, c) && !x->states[i].gone &&
        fits(&x->states[i], mask, stamps))
      return true;
  return false;
}

bool vmodel_may_find(const struct vmodel *m, const struct content *c, uint32_t cell,
                     const uint32_t stamps[CELL_SECTORS]) {
  if (!m->torn_blocks) return may_find(m, c, cell, 0xff, stamps);
  for (uint32_t i = 0; i < CELL_SECTORS; i++)
    if (!may_find(m, c, cell, (uint8_t)(1u << i), stamps)) return false;
  return true;
}

static void cell_found(struct vmodel *m, struct cell *x, const uint32_t stamps[CELL_SECTORS],
                       bool survives) {
  struct cell_state s = {.born = m->clock, .died = NEVER};
  if (survives) x->count = 0;
  for (uint32_t i = 0; i < x->count; i++) {
    x->states[i].last = x->states[i].applied = 0;
    x->states[i].died = min_u64(x->states[i].died, m->clock);
  }
  x->pending = 0;
  memcpy(s.stamp, stamps, sizeof s.stamp);
  cell_add(x, &s);
}

void vmodel_collapse(struct vmodel *m, struct vnode *n, const struct vversion *v, uint64_t id,
                     const uint32_t (*stamps)[CELL_SECTORS], bool survives) {
  if (!v) {
    node_free(m, n);
    return;
  }
  struct vversion keep = *v;
  content_ref(keep.content);
  for (uint32_t i = 0; i < n->version_count; i++) content_unref(n->versions[i].content);
  m->clock++;
  for (uint32_t i = 0; i < m->cell_count; i++)
    cell_found(m, &keep.content->cells[i], stamps[i], survives);
  keep.died = NEVER;
  n->versions[0] = keep;
  n->version_count = 1;
  n->id = id;
  m->changes++;
}

uint64_t vmodel_expectation(const struct vmodel *m) {
  return m->changes * UINT64_C(0x9e3779b97f4a7c15);
}
