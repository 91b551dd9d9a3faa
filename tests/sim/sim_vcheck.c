/* sim_vcheck.c - the volumes of an opened store against the model; see sim_vclient.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_vclient.h"

#define LISTED_MAX 64u

struct found {
  struct vnode *node;
  const struct vversion *version;
  uint64_t id;
  uint32_t stamps[CELLS_MAX][CELL_SECTORS];
};

static uint64_t mix(uint64_t hash, uint64_t more) {
  hash = (hash ^ more) * UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 29;
}

/* ---- One volume --------------------------------------------------------------------------------
 */

static void read_bytes(struct sr_port *port, struct sr_block *b, const char *name, char *buf,
                       uint64_t offset, uint64_t bytes) {
  int64_t n = sr_block_read(port, b, buf, offset, bytes);
  if (n != (int64_t)bytes)
    sim_violation("volume %s: read of [%llu, +%llu): %lld", name, (unsigned long long)offset,
                  (unsigned long long)bytes, (long long)n);
}

static void decode(const struct vmodel *m, const char *name, uint32_t cell, const char *bytes,
                   uint64_t count, uint32_t stamps[CELL_SECTORS]) {
  uint64_t at = vmodel_cell_block(m, cell) << BLOCK_SHIFT;
  memset(stamps, 0, CELL_SECTORS * sizeof *stamps);
  for (uint32_t k = 0; k < count / CELL_SECTOR; k++) {
    stamps[k] = vmodel_decode(m, at + k * CELL_SECTOR, bytes + k * CELL_SECTOR);
    if (stamps[k] == NO_STAMP)
      sim_violation("volume %s, block %llu: bytes that nobody has written", name,
                    (unsigned long long)(at >> BLOCK_SHIFT));
  }
}

static void read_windows(struct sr_port *port, struct sr_block *b, const struct vmodel *m,
                         const char *name, struct found *f) {
  static char buf[CELLS_MAX * BLOCK_BYTES] __attribute__((aligned(4096)));
  uint64_t size = sr_block_size_bytes(b);
  for (uint32_t w = 0; w < WINDOWS; w++) {
    uint32_t first = m->window_first[w], end = m->window_first[w + 1];
    uint64_t at = m->window_block[w] << BLOCK_SHIFT, bytes = (uint64_t)(end - first) << BLOCK_SHIFT;
    bytes = at < size ? min_u64(bytes, size - at) : 0;
    if (bytes) read_bytes(port, b, name, buf, at, bytes);
    for (uint32_t i = first; i < end; i++) {
      uint64_t in = (uint64_t)(i - first) << BLOCK_SHIFT;
      decode(m, name, i, buf + in, in < bytes ? min_u64(BLOCK_BYTES, bytes - in) : 0, f->stamps[i]);
    }
  }
}

/* What nobody writes to is zeros. */
static void read_between(struct sr_port *port, struct sr_block *b, const struct vmodel *m,
                         const char *name) {
  static char buf[512u << 10] __attribute__((aligned(4096)));
  uint64_t size = sr_block_size_bytes(b);
  for (uint64_t at = 0; at < size; at += sizeof buf) {
    uint64_t bytes = min_u64(sizeof buf, size - at);
    read_bytes(port, b, name, buf, at, bytes);
    for (uint32_t i = 0; i < m->cell_count; i++) {
      uint64_t cell = vmodel_cell_block(m, i) << BLOCK_SHIFT;
      if (cell >= at && cell < at + bytes)
        memset(buf + (cell - at), 0, min_u64(BLOCK_BYTES, at + bytes - cell));
    }
    if (buf[0] || memcmp(buf, buf + 1, bytes - 1) != 0)
      sim_violation("volume %s: data where nobody wrote, in [%llu, +%llu)", name,
                    (unsigned long long)at, (unsigned long long)bytes);
  }
}

/* ---- Which version -----------------------------------------------------------------------------
 */

static bool has_shape(const struct vversion *v, const struct sr_volume_info *info) {
  return v->there && strcmp(v->name, info->name) == 0 && v->size_bytes == info->size_bytes;
}

/* The first cell that is not what it may be; cell_count: none. */
static uint32_t wrong_cell(const struct vmodel *m, const struct vversion *v,
                           const struct found *f) {
  uint32_t i = 0;
  for (; i < m->cell_count; i++) {
    if (vmodel_cell_block(m, i) << BLOCK_SHIFT >= v->size_bytes) continue;
    if (!vmodel_may_find(m, v->content, i, f->stamps[i])) break;
  }
  return i;
}

static struct vnode *node_of(struct vmodel *m, const struct sr_volume_info *info) {
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (m->nodes[i].used && m->nodes[i].id == info->id) return &m->nodes[i];
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (m->nodes[i].used && !m->nodes[i].id)
      for (uint32_t k = 0; k < m->nodes[i].version_count; k++)
        if (has_shape(&m->nodes[i].versions[k], info)) return &m->nodes[i];
  return NULL;
}

static void trace_cell(const struct vmodel *m, const struct vnode *n, uint32_t cell) {
  for (uint32_t k = 0; k < n->version_count; k++) {
    const struct vversion *v = &n->versions[k];
    sim_trace("version %u: %s %s of %llu bytes, %llu to %lld, covered %llu\n", k,
              v->there ? "there" : "absent", v->name, (unsigned long long)v->size_bytes,
              (unsigned long long)v->born, (long long)v->died,
              (unsigned long long)max_u64(n->covered, m->covered));
    if (!v->content) continue;
    const struct cell *x = &v->content->cells[cell];
    sim_trace("  pending %x, covered %llu\n", x->pending, (unsigned long long)v->content->covered);
    for (uint32_t i = 0; i < x->count; i++) {
      const struct cell_state *s = &x->states[i];
      sim_trace("  %u %u %u %u %u %u %u %u, %llu to %lld, in flight %x%s\n", s->stamp[0],
                s->stamp[1], s->stamp[2], s->stamp[3], s->stamp[4], s->stamp[5], s->stamp[6],
                s->stamp[7], (unsigned long long)s->born, (long long)s->died, s->applied,
                s->gone ? ", gone" : "");
    }
  }
}

static void match(struct vmodel *m, const struct sr_volume_info *info, struct found *f) {
  uint32_t wrong = UINT32_MAX;
  f->node = node_of(m, info);
  f->id = info->id;
  if (!f->node || f->node->sealed != info->snapshot)
    sim_violation("volume %s (id %llu): there was none like that", info->name,
                  (unsigned long long)info->id);
  for (uint32_t k = 0; k < f->node->version_count; k++) {
    const struct vversion *v = &f->node->versions[k];
    if (!vmodel_may_be(m, f->node, v) || !has_shape(v, info)) continue;
    wrong = wrong_cell(m, v, f);
    if (wrong < m->cell_count) continue;
    f->version = v;
    return;
  }
  if (wrong == UINT32_MAX)
    sim_violation("volume %s (id %llu) of %llu bytes: its name or size is not of its time",
                  info->name, (unsigned long long)info->id, (unsigned long long)info->size_bytes);
  trace_cell(m, f->node, wrong);
  sim_violation("volume %s (id %llu, shard %u): block %llu (writes %u %u %u %u %u %u %u %u) is no "
                "version that may be there",
                info->name, (unsigned long long)info->id, info->shard,
                (unsigned long long)vmodel_cell_block(m, wrong), f->stamps[wrong][0],
                f->stamps[wrong][1], f->stamps[wrong][2], f->stamps[wrong][3], f->stamps[wrong][4],
                f->stamps[wrong][5], f->stamps[wrong][6], f->stamps[wrong][7]);
}

static uint64_t look_at(struct sr_port *port, struct vmodel *m, const struct sr_volume_info *info,
                        struct found *f) {
  struct sr_block *b;
  struct sr_block_options how = SR_BLOCK_OPTIONS_INIT;
  how.read_only = true;
  int r = sr_volume_open(port, info->name, &how, &b);
  if (r) sim_violation("volume %s does not open: %s", info->name, strerror(-r));
  memset(f, 0, sizeof *f);
  read_windows(port, b, m, info->name, f);
  if (m->stamp % 16 == 0) read_between(port, b, m, info->name);
  r = sr_block_close(port, b);
  if (r) sim_violation("volume %s does not close: %s", info->name, strerror(-r));
  match(m, info, f);
  uint64_t hash = mix(info->id, info->size_bytes);
  for (const char *at = info->name; *at; at++) hash = mix(hash, (uint64_t)*at);
  for (uint32_t i = 0; i < m->cell_count; i++)
    for (uint32_t k = 0; k < CELL_SECTORS; k++) hash = mix(hash, f->stamps[i][k]);
  return hash;
}

/* ---- All ---------------------------------------------------------------------------------------
 */

static bool may_be_absent(const struct vmodel *m, const struct vnode *n) {
  for (uint32_t k = 0; k < n->version_count; k++)
    if (!n->versions[k].there && vmodel_may_be(m, n, &n->versions[k])) return true;
  return false;
}

static const struct found *found_of(const struct found *list, uint32_t count,
                                    const struct vnode *n) {
  for (uint32_t i = 0; i < count; i++)
    if (list[i].node == n) return &list[i];
  return NULL;
}

static void settle(struct vmodel *m, struct vnode *n, const struct found *f) {
  if (f || may_be_absent(m, n)) return;
  trace_cell(m, n, 0);
  sim_violation("volume %s (id %llu) is lost", vnode_last(n)->name, (unsigned long long)n->id);
}

static void collapse(struct vmodel *m, struct vnode *n, const struct found *f, bool survives) {
  vmodel_collapse(m, n, f ? f->version : NULL, f ? f->id : 0, f ? f->stamps : NULL, survives);
}

uint64_t sim_compare_volumes(struct sr_store *store, struct vmodel *m, enum found_what what) {
  static struct sr_volume_info infos[LISTED_MAX];
  struct sr_port *port;
  uint64_t hash = 0;
  if (sr_port_open(store, NULL, &port)) sim_violation("no port");
  int n = sr_volume_list(port, "", infos, LISTED_MAX);
  if (n < 0) sim_violation("list of volumes: %s", strerror(-n));
  struct found *list = calloc((size_t)n + 1, sizeof *list);
  check(list != NULL);
  for (int i = 0; i < n; i++) {
    if (i && strcmp(infos[i - 1].name, infos[i].name) >= 0)
      sim_violation("list of volumes: %s is not behind %s", infos[i].name, infos[i - 1].name);
    sim_trace("  found %s, id %llu, parent %llu, shard %u\n", infos[i].name,
              (unsigned long long)infos[i].id, (unsigned long long)infos[i].parent_id,
              infos[i].shard);
    hash = mix(hash, look_at(port, m, &infos[i], &list[i]));
    if (found_of(list, (uint32_t)i, list[i].node))
      sim_violation("volume %s (id %llu) is listed twice", infos[i].name,
                    (unsigned long long)infos[i].id);
  }
  for (uint32_t i = 0; i < NODES_MAX; i++)
    if (m->nodes[i].used) settle(m, &m->nodes[i], found_of(list, (uint32_t)n, &m->nodes[i]));
  for (uint32_t i = 0; i < NODES_MAX && what != FOUND_LOOK; i++)
    if (m->nodes[i].used)
      collapse(m, &m->nodes[i], found_of(list, (uint32_t)n, &m->nodes[i]), what == FOUND_SURVIVING);
  free(list);
  if (sr_port_close(port)) sim_violation("a port cannot be closed");
  return hash;
}
