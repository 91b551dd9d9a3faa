/* manifest_map.c - changes of volumes: clusters of layers, and records, each with its log entry;
 * and data that was overwritten where it lay. Owned by the shard's thread; see manifest.h and
 * manifest_internal.h. */
#include <string.h>

#include "shards/base/plant.h"
#include "shards/manifest_internal.h"

struct map *manifest_map(struct manifest *m) {
  return m->map;
}
const struct records *manifest_records(const struct manifest *m) { return m->records; }

uint64_t manifest_note_data(struct manifest *m) {
  uint64_t ticket = manifest_ticket(m);
  if (PLANTED(sync_skips_data)) return ticket - 1;
  m->notes++;
  return ticket;
}

uint64_t manifest_last_change(const struct manifest *m) { return manifest_ticket(m) - 1; }

/* ---- Clusters ---------------------------------------------------------------------------- */

int manifest_reserve_map(struct manifest *m, uint32_t clusters, bool frees) {
  check(clusters >= 1 && clusters <= LEAF_CLUSTERS);
  return manifest_reserve_entry(m, entry_move_bytes(clusters), frees);
}

void manifest_cancel_map(struct manifest *m, uint32_t clusters) {
  manifest_cancel_entry(m, entry_move_bytes(clusters));
}

static uint32_t count_bits(uint64_t bits) { return (uint32_t)__builtin_popcountll(bits); }

static void give_back(struct manifest *m, const struct extent *run) {
  if (PLANTED(free_discards_at_once))
    space_cancel(m->space, run, 1);
  else
    space_free(m->space, run, 1);
}

/* What the clusters have and do not keep; neighbours in one go. */
static void free_places(struct manifest *m, const struct cluster *have, uint64_t which,
                        const struct cluster *keep) {
  struct extent run = {0};
  for (; which; which &= which - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(which), place = have[slot].place;
    if (!place || place == keep[slot].place) continue;
    if (run.blocks && run.block + run.blocks == place) {
      run.blocks += CLUSTER_BLOCKS;
      continue;
    }
    if (run.blocks) give_back(m, &run);
    run = (struct extent){place, CLUSTER_BLOCKS};
  }
  if (run.blocks) give_back(m, &run);
}

/* clusters NULL: they become empty. At once, since a leaf that is empty may go away. */
static void set_all(struct manifest *m, struct layer *layer, uint64_t leaf, uint64_t which,
                    const struct cluster *clusters) {
  static const struct cluster none[LEAF_CLUSTERS];
  struct cluster now[LEAF_CLUSTERS];
  if (!which) return;
  if (!clusters) clusters = none;
  if ((which & (which - 1)) == 0) {
    uint32_t slot = (uint32_t)__builtin_ctzll(which);
    layer_set(m->map, layer, leaf * LEAF_CLUSTERS + slot, clusters[slot]);
    return;
  }
  memcpy(now, layer_leaf(layer, leaf), sizeof now);
  for (; which; which &= which - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(which);
    now[slot] = clusters[slot];
  }
  layer_set_leaf(m->map, layer, leaf, now);
}

uint64_t manifest_set_clusters(struct manifest *m, struct layer *layer, uint64_t leaf,
                               uint64_t which, const struct cluster clusters[LEAF_CLUSTERS],
                               uint32_t reserved) {
  const struct cluster *have = layer_leaf(layer, leaf);
  check(have != NULL && which != 0 && count_bits(which) <= reserved);
  bool whole = which == UINT64_MAX;
  void *at = manifest_log_place(m, entry_map_bytes(count_bits(which)));
  manifest_log_added(m,
                     log_entry_map(at, layer_id(layer), leaf, whole,
                                   whole ? clusters_lasting(clusters) : which, clusters),
                     UNVERIFIABLE);
  free_places(m, have, which, clusters);
  set_all(m, layer, leaf, which, clusters);
  manifest_cancel_map(m, reserved); /* consumed */
  return manifest_next_ticket(m);
}

uint64_t manifest_move_clusters(struct manifest *m, struct layer *from, uint64_t which_from,
                                struct layer *to, uint64_t which_to, uint64_t leaf,
                                const struct cluster clusters[LEAF_CLUSTERS], uint32_t reserved) {
  check((which_from | which_to) != 0 && count_bits(which_to) <= reserved);
  check(layer_leaf(from, leaf) != NULL && layer_leaf(to, leaf) != NULL);
  void *at = manifest_log_place(m, entry_move_bytes(count_bits(which_to)));
  manifest_log_added(
      m, log_entry_move(at, layer_id(from), which_from, layer_id(to), which_to, leaf, clusters),
      UNVERIFIABLE);
  set_all(m, from, leaf, which_from, NULL);
  set_all(m, to, leaf, which_to, clusters);
  manifest_cancel_map(m, reserved); /* consumed */
  return manifest_next_ticket(m);
}

/* ---- Checksums --------------------------------------------------------------------------- */

int manifest_reserve_sums(struct manifest *m) {
  return manifest_reserve_entry(m, entry_sums_bytes(SUMS_BLOCKS), false);
}

void manifest_cancel_sums(struct manifest *m) {
  manifest_cancel_entry(m, entry_sums_bytes(SUMS_BLOCKS));
}

int manifest_set_sums(struct manifest *m, struct layer *layer, uint64_t leaf,
                      const struct leaf_sums *sums) {
  int r = layer_set_sums(m->map, layer, leaf, sums);
  if (!r && sums_count(sums->has)) {
    void *at = manifest_log_place(m, entry_sums_bytes(SUMS_BLOCKS));
    manifest_log_added(m, log_entry_sums(at, layer_id(layer), leaf, sums), UNVERIFIABLE);
    manifest_next_ticket(m);
  }
  manifest_cancel_sums(m); /* consumed */
  return r;
}

int manifest_reserve_void(struct manifest *m) {
  return manifest_reserve_entry(m, entry_sums_bytes(0), false);
}

uint64_t manifest_void_sums(struct manifest *m, struct layer *layer, uint64_t leaf) {
  static const struct leaf_sums none;
  void *at = manifest_log_place(m, entry_sums_bytes(0));
  manifest_log_added(m, log_entry_sums(at, layer_id(layer), leaf, &none), UNVERIFIABLE);
  layer_heat_sums(m->map, layer, leaf);
  manifest_cancel_entry(m, entry_sums_bytes(0)); /* consumed */
  return manifest_next_ticket(m);
}

bool manifest_is_durable(const struct manifest *m, uint64_t sequence) {
  return sequence < m->covered;
}

/* ---- Records ----------------------------------------------------------------------------- */

int manifest_reserve_record(struct manifest *m, struct blob_id key, uint32_t bytes) {
  (void)key;
  check(bytes <= RECORD_BYTES_MAX);
  int r = manifest_reserve_entry(m, entry_record_bytes(bytes), bytes == 0);
  if (r) return r;
  r = records_reserve(m->records, bytes);
  if (r) manifest_cancel_entry(m, entry_record_bytes(bytes));
  return r;
}

void manifest_cancel_record(struct manifest *m, uint32_t bytes) {
  records_cancel(m->records, bytes);
  manifest_cancel_entry(m, entry_record_bytes(bytes));
}

uint64_t manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                             uint32_t bytes) {
  void *at = manifest_log_place(m, entry_record_bytes(bytes));
  manifest_log_added(m, log_entry_record(at, key, data, bytes), UNVERIFIABLE);
  records_put(m->records, key, data, bytes);
  manifest_cancel_entry(m, entry_record_bytes(bytes)); /* consumed */
  return manifest_next_ticket(m);
}
