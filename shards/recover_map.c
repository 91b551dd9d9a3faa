/* recover_map.c - clusters and records in recovery: from entries to map and records, and the claims
 * of what clusters take. Synchronous, on the thread of the shard's core.
 *
 * A leaf goes to the map in one piece, and places that lie in a row are claimed in one go: an open
 * with a terabyte mapped is 16 million clusters. In spite of damage, changes that came behind the
 * last lost one are certain, cluster by cluster; they claim before the others do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/losses.h"
#include "shards/recover.h"

/* ---- Applying ---------------------------------------------------------------------------- */

static uint32_t partition_of_leaf(const struct manifest *m, uint64_t layer, uint64_t leaf) {
  return map_partition_of(map_leaf_hash(m->map, layer, leaf));
}
static uint32_t partition_of_record(const struct manifest *m, struct blob_id key) {
  return index_partition_of(hash_id(key, m->config.hash_key));
}

/* clusters: all of the leaf. */
static int set_leaf(struct map *map, struct layer *layer, uint64_t leaf,
                    const struct cluster *clusters) {
  if (layer_pin_leaf(map, layer, leaf)) return -ENOMEM;
  layer_set_leaf(map, layer, leaf, clusters);
  layer_unpin_leaf(map, layer, leaf); /* where nothing is in it, it goes away */
  return 0;
}

/* The clusters of `which` become those that follow each other at `from`; NULL: empty. */
static int change_leaf(struct map *map, uint64_t id, uint64_t leaf, bool whole, uint64_t which,
                       const struct cluster *from) {
  struct cluster now[LEAF_CLUSTERS] = {{0}};
  struct layer *layer = map_layer(map, id);
  const struct cluster *have = layer ? layer_leaf(layer, leaf) : NULL;
  if (!have && (!from || !which)) return 0;
  if (!layer && map_layer_add(map, id, &layer)) return -ENOMEM;
  if (from && which == UINT64_MAX) return set_leaf(map, layer, leaf, from);
  if (have && !whole) memcpy(now, have, sizeof now);
  for (; which; which &= which - 1)
    now[__builtin_ctzll(which)] = from ? *from++ : (struct cluster){0};
  return set_leaf(map, layer, leaf, now);
}

/* Behind a lost change: what these clusters are is certain from now on. */
static int note_certain(struct manifest *m, uint32_t p, uint64_t layer, uint64_t leaf,
                        uint64_t which) {
  struct cluster marks[LEAF_CLUSTERS];
  if (!m->losses || !m->losses->old[p] || !which) return 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) marks[i] = (struct cluster){.zero = 1};
  return change_leaf(m->losses->certain_clusters, layer, leaf, false, which, marks);
}

static bool is_covered(const struct manifest *m, uint32_t p, uint64_t sequence) {
  const struct checkpoint *c = checkpoint_of(m, p);
  return c && sequence < c->sequence;
}

static int apply_half(struct manifest *m, uint64_t sequence, uint64_t layer, uint64_t leaf,
                      bool whole, uint64_t which, const struct cluster *clusters) {
  uint32_t p = partition_of_leaf(m, layer, leaf);
  if (is_covered(m, p, sequence)) return 0;
  int r = change_leaf(m->map, layer, leaf, whole, which, clusters);
  return r ? r : note_certain(m, p, layer, leaf, whole ? UINT64_MAX : which);
}

static int set_record(struct manifest *m, const struct record_entry *e) {
  if (records_reserve(m->records, e->bytes)) return -ENOMEM;
  records_put(m->records, e->key, e->data, e->bytes);
  return 0;
}

/* Of blocks that are not there, as after lost changes: left out. */
static int set_sums(struct manifest *m, const struct sums_entry *e) {
  struct leaf_sums sums;
  struct layer *layer = map_layer(m->map, e->layer);
  if (!layer || !layer_leaf(layer, e->leaf)) return 0;
  log_unpack_sums(e, &sums);
  return layer_set_sums(m->map, layer, e->leaf, &sums);
}

/* Behind a lost change nobody knows which data they were of; but that there are none is true. */
static int apply_sums(struct manifest *m, const struct sums_entry *e, uint64_t sequence) {
  uint32_t p = partition_of_leaf(m, e->layer, e->leaf);
  bool old = m->losses && m->losses->old[p];
  if (is_covered(m, p, sequence) || (old && sums_count(e->has))) return 0;
  return set_sums(m, e);
}

int recover_apply_volume(struct manifest *m, const struct entry *e, uint64_t sequence) {
  const struct map_entry *x = &e->map;
  int r = 0;
  if (e->type == ENTRY_SUMS) return apply_sums(m, &e->sums, sequence);
  if (e->type == ENTRY_RECORD)
    return is_covered(m, partition_of_record(m, e->record.key), sequence)
               ? 0
               : set_record(m, &e->record);
  if (e->type == ENTRY_MOVE)
    r = apply_half(m, sequence, x->from, x->leaf, false, x->which_from, NULL);
  return r ? r : apply_half(m, sequence, x->layer, x->leaf, x->whole, x->which, x->clusters);
}

/* ---- From checkpoints -------------------------------------------------------------------- */

const char *recover_volume_fits(const struct manifest *m, const struct checkpoint *c,
                                const struct entry *e, bool *newest) {
  bool is_map = e->type == ENTRY_MAP, is_record = e->type == ENTRY_RECORD;
  bool is_sums = e->type == ENTRY_SUMS;
  if (!(is_map && e->map.whole) && !(is_record && e->record.bytes) &&
      !(is_sums && sums_count(e->sums.has)))
    return "a change, not a state";
  uint32_t p = is_map    ? partition_of_leaf(m, e->map.layer, e->map.leaf)
               : is_sums ? partition_of_leaf(m, e->sums.layer, e->sums.leaf)
                         : partition_of_record(m, e->record.key);
  if (p < c->first || p >= c->first + c->count)
    return is_record ? "a record of another partition" : "a leaf of another partition";
  *newest = m->of_partition[p] == c;
  return NULL;
}

int recover_load_volume(struct manifest *m, const struct entry *e) {
  const struct map_entry *x = &e->map;
  if (e->type == ENTRY_RECORD) return set_record(m, &e->record);
  if (e->type == ENTRY_SUMS) return set_sums(m, &e->sums);
  return change_leaf(m->map, x->layer, x->leaf, true, x->which, x->clusters);
}

bool manifest_leaf_is_old(const struct manifest *m, uint64_t layer, uint64_t leaf) {
  return m->losses && m->losses->old[partition_of_leaf(m, layer, leaf)];
}

bool recover_has_volume(const struct manifest *m, const struct entry *e) {
  if (e->type == ENTRY_RECORD) return records_find(m->records, e->record.key) != NULL;
  if (e->type == ENTRY_SUMS) return true; /* what is gleaned is too uncertain to be accused */
  const struct layer *layer = map_layer(m->map, e->map.layer);
  return layer && layer_leaf(layer, e->map.leaf);
}

void recover_drop_empty_layers(struct manifest *m) {
  struct layer *layer = map_layer_next(m->map, NULL);
  while (layer) {
    struct layer *next = map_layer_next(m->map, layer);
    struct layer_stats stats;
    layer_stats(layer, &stats);
    if (stats.leaves == 0) map_layer_remove(m->map, layer);
    layer = next;
  }
}

/* ---- Claims ------------------------------------------------------------------------------ */

struct claims {
  struct manifest *m;
  char *why;
  size_t why_bytes;
};

/* Clusters from a slot on whose places follow each other. */
static uint32_t run_length(const struct cluster *clusters, uint32_t slot) {
  uint32_t n = 1;
  while (slot + n < LEAF_CLUSTERS && clusters[slot + n].place &&
         clusters[slot + n].place == clusters[slot].place + n * CLUSTER_BLOCKS)
    n++;
  return n;
}

static int claim_leaf(void *arg, struct layer *layer, uint64_t leaf,
                      const struct cluster clusters[LEAF_CLUSTERS]) {
  struct claims *c = arg;
  struct space *s = c->m->space;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) space_claim_prefetch(s, clusters[i].place);
  for (uint32_t i = 0, n; i < LEAF_CLUSTERS; i += n) {
    n = 1;
    if (!clusters[i].place) continue;
    n = run_length(clusters, i);
    if (space_claim(s, clusters[i].place, n * CLUSTER_BLOCKS) == 0) continue;
    while (space_claim(s, clusters[i].place, CLUSTER_BLOCKS) == 0) i++; /* which one it is */
    snprintf(c->why, c->why_bytes, "layer %llu, cluster %llu: block %u belongs to another as well",
             (unsigned long long)layer_id(layer), (unsigned long long)(leaf * LEAF_CLUSTERS + i),
             clusters[i].place);
    return -EBADMSG;
  }
  return 0;
}

int recover_claim_clusters(struct manifest *m, char *why, size_t why_bytes) {
  struct claims c = {m, why, why_bytes};
  int r = 0;
  for (uint32_t p = 0; !r && p < INDEX_PARTITIONS; p++)
    r = map_partition_visit(m->map, p, claim_leaf, &c);
  return r;
}

/* ---- In spite of damage ------------------------------------------------------------------ */

struct refused {
  uint64_t layer, leaf, which;
};
struct old_clusters {
  struct manifest *m;
  struct refused *list;
  uint64_t count, max;
  bool certain; /* claims those; else the others */
};

/* Of a leaf: the clusters that no lost change can have concerned. */
static uint64_t certain_of(const struct manifest *m, uint64_t layer, uint64_t leaf) {
  uint64_t which = 0;
  if (!m->losses->old[partition_of_leaf(m, layer, leaf)]) return UINT64_MAX;
  const struct layer *marks = map_layer(m->losses->certain_clusters, layer);
  const struct cluster *c = marks ? layer_leaf(marks, leaf) : NULL;
  for (uint32_t i = 0; c && i < LEAF_CLUSTERS; i++) which |= (uint64_t)(c[i].zero != 0) << i;
  return which;
}

static int claim_sound(void *arg, struct layer *layer, uint64_t leaf,
                       const struct cluster clusters[LEAF_CLUSTERS]) {
  struct old_clusters *o = arg;
  struct refused x = {.layer = layer_id(layer), .leaf = leaf};
  uint64_t certain = certain_of(o->m, x.layer, leaf);
  for (uint64_t w = o->certain ? certain : ~certain; w; w &= w - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(w), place = clusters[slot].place;
    if (place && space_claim(o->m->space, place, CLUSTER_BLOCKS)) x.which |= UINT64_C(1) << slot;
  }
  if (!x.which) return 0;
  if (o->count == o->max) {
    uint64_t max = o->max ? 2 * o->max : 64;
    struct refused *list = realloc(o->list, max * sizeof *list);
    if (!list) return -ENOMEM;
    o->list = list;
    o->max = max;
  }
  o->list[o->count++] = x;
  return 0;
}

static void report(const struct manifest *m, struct blob_id id, const char *text) {
  struct damage d = {
      .kind = DAMAGE_LOG, .error = -EBADMSG, .shard = m->config.shard, .id = id, .what = text};
  damage_report(&m->config.damage, &d);
}

static int drop_refused(struct old_clusters *o) {
  for (uint64_t i = 0; i < o->count; i++) {
    const struct refused *x = &o->list[i];
    char text[160];
    snprintf(text, sizeof text,
             "layer %llu, clusters %llu to %llu: some places of %u of them belong to others: they "
             "were replaced or discarded; left out",
             (unsigned long long)x->layer, (unsigned long long)(x->leaf * LEAF_CLUSTERS),
             (unsigned long long)(x->leaf * LEAF_CLUSTERS + LEAF_CLUSTERS - 1),
             (unsigned)__builtin_popcountll(x->which));
    report(o->m, (struct blob_id){x->layer, x->leaf}, text);
    int r = change_leaf(o->m->map, x->layer, x->leaf, false, x->which, NULL);
    if (r) return r;
  }
  o->count = 0;
  return 0;
}

int recover_claim_damaged(struct manifest *m, bool certain) {
  struct old_clusters o = {.m = m, .certain = certain};
  int r = 0;
  for (uint32_t p = 0; !r && p < INDEX_PARTITIONS; p++)
    r = map_partition_visit(m->map, p, claim_sound, &o);
  if (!r) r = drop_refused(&o);
  free(o.list);
  return r;
}

/* What is missing may be of any layer; a record's changes are all in its partition. */
void recover_report_volumes(struct manifest *m) {
  bool any = false;
  char text[160];
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    any |= m->losses->old[p] || m->losses->partition[p];
  for (struct layer *layer = NULL; any && (layer = map_layer_next(m->map, layer)) != NULL;) {
    snprintf(text, sizeof text,
             "layer %llu: parts of it may be missing, or older than what was written last",
             (unsigned long long)layer_id(layer));
    report(m, (struct blob_id){layer_id(layer), 0}, text);
  }
  for (const struct record *x = NULL; any && (x = records_next(m->records, x)) != NULL;) {
    if (!m->losses->old[index_partition_of(x->hash)]) continue;
    snprintf(text, sizeof text,
             "record %016llx%016llx: may be older than what was put last, or removed since",
             (unsigned long long)x->key.hi, (unsigned long long)x->key.lo);
    report(m, x->key, text);
  }
}
