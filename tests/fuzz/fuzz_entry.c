/* fuzz_entry.c - log_entry_decode(), log_entry_peek(): entries one after the other, as in a frame.
 * What is accepted is in range, fits the index, and encodes to the same bytes.
 *
 * Input: the region's blocks (8 bytes), then entries. */
#include <stdlib.h>
#include <string.h>

#include "shards/log.h"
#include "tests/fuzz/fuzz.h"

#define ENTRY_BYTES       65536u /* of the input that are looked at */
#define REGION_BLOCKS_MAX (UINT64_C(1) << 51)

static void check_put(const struct blob *b, uint64_t region_blocks) {
  uint64_t blocks = 0;
  check(b->bytes <= UINT64_C(1) << 40);
  check((b->flags & ~BLOB_NO_CHECKSUM) == 0);
  check(b->granule_shift >= BLOCK_SHIFT && b->granule_shift <= 26);
  check(b->extent_count <= BLOB_EXTENTS_MAX);
  check((b->bytes == 0) == (b->extent_count == 0));
  for (uint32_t i = 0; i < b->extent_count; i++) {
    const struct extent *e = &b->extents[i];
    check(e->blocks > 0);
    check(e->block < region_blocks);
    check(e->blocks <= region_blocks - e->block);
    blocks += e->blocks;
  }
  check(blocks >= bytes_to_blocks(b->bytes));
  bool none = b->bytes == 0 || b->flags & BLOB_NO_CHECKSUM;
  check(b->granule_count == (none ? 0 : blob_granule_count(b->bytes, b->granule_shift)));
}

/* One block as a small put would have it: the encoder writes that, and never the long form. */
static bool small_in_long_form(const struct entry *e, const struct blob *b) {
  return e->type == ENTRY_PUT && b->extent_count == 1 && b->extents[0].blocks == 1 &&
         b->granule_count <= 1 && b->bytes <= BLOCK_BYTES;
}

static void check_same_bytes(const struct entry *e, const void *buf, uint32_t n) {
  bool deletes = e->type == ENTRY_DELETE; /* has nothing but the id */
  char *again =
      fuzz_alloc(deletes ? n : entry_put_bytes(e->blob.extent_count, e->blob.granule_count));
  if (deletes) {
    check(log_entry_delete(again, e->blob.id) == n);
    check(memcmp(again, buf, n) == 0);
  } else if (small_in_long_form(e, &e->blob)) {
    check(log_entry_put(again, &e->blob) == ENTRY_SMALL_BYTES);
  } else {
    check(n <= entry_put_bytes(e->blob.extent_count, e->blob.granule_count));
    check(log_entry_put(again, &e->blob) == n);
    check(memcmp(again, buf, n) == 0);
  }
  free(again);
}

/* What recovery does with it: the index takes it, and gives the same back. */
static void check_in_index(struct index *x, const uint64_t key[2], const struct blob *b) {
  uint64_t hash = hash_id(b->id, key);
  struct blob found;
  bool roomy = b->extent_count == 1 && (b->extents[0].blocks != bytes_to_blocks(b->bytes) ||
                                        b->extents[0].block >= INDEX_NEAR_BLOCKS);
  check(index_reserve(x, hash, roomy ? 2 : b->extent_count, b->granule_count) == 0);
  check(index_put(x, hash, b) == 0);
  check(index_find(x, hash, b->id, &found) == 0);
  check(found.bytes == b->bytes && found.flags == b->flags);
  check(found.extent_count == b->extent_count && found.granule_count == b->granule_count);
  check(memcmp(found.extents, b->extents, b->extent_count * sizeof(struct extent)) == 0);
  check(memcmp(found.checksums, b->checksums, b->granule_count * 4u) == 0);
}

/* ---- Of volumes -------------------------------------------------------------------------- */

/* As recovery gives them to the map, which has checks of its own. */
static void check_in_map(struct map *map, uint64_t id, uint64_t leaf,
                         const struct cluster clusters[LEAF_CLUSTERS]) {
  struct layer *layer;
  check(map_layer_add(map, id, &layer) == 0);
  check(layer_pin_leaf(map, layer, leaf) == 0);
  layer_set_leaf(map, layer, leaf, clusters);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    struct cluster c = layer_get(layer, leaf * LEAF_CLUSTERS + i);
    check(memcmp(&c, &clusters[i], sizeof c) == 0);
  }
  layer_unpin_leaf(map, layer, leaf);
}

static void check_clusters(struct map *map, const struct entry *e, const void *buf, uint32_t n,
                           uint64_t region_blocks) {
  const struct map_entry *x = &e->map;
  struct cluster all[LEAF_CLUSTERS] = {{0}};
  const struct cluster *from = x->clusters;
  check(x->layer != 0 && x->leaf < MAP_LEAVES_MAX);
  for (uint64_t w = x->which; w; w &= w - 1) all[__builtin_ctzll(w)] = *from++;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    struct cluster c = all[i];
    check((c.valid & c.zero) == 0);
    check((c.place != 0) == (c.valid != 0));
    check(!c.place || (uint64_t)c.place + CLUSTER_BLOCKS <= region_blocks);
  }
  char *again = fuzz_alloc(entry_move_bytes(LEAF_CLUSTERS));
  uint32_t bytes =
      e->type == ENTRY_MOVE
          ? log_entry_move(again, x->from, x->which_from, x->layer, x->which, x->leaf, all)
          : log_entry_map(again, x->layer, x->leaf, x->whole, x->which, all);
  check(bytes == n && memcmp(again, buf, n) == 0);
  free(again);
  check_in_map(map, x->layer, x->leaf, all);
}

/* Of blocks that have data, as the map has them; of others they are left out. */
static void check_sums(struct map *map, const struct sums_entry *x, const void *buf, uint32_t n) {
  struct leaf_sums *sums = fuzz_alloc(sizeof *sums), *have = fuzz_alloc(sizeof *have);
  char *again = fuzz_alloc(entry_sums_bytes(SUMS_BLOCKS));
  const struct layer *layer = map_layer(map, x->layer);
  const struct cluster *leaf = layer ? layer_leaf(layer, x->leaf) : NULL;
  check(x->layer != 0 && x->leaf < MAP_LEAVES_MAX);
  log_unpack_sums(x, sums);
  check(log_entry_sums(again, x->layer, x->leaf, sums) == n);
  check(memcmp(again, buf, n) == 0);
  if (leaf) {
    check(layer_set_sums(map, map_layer(map, x->layer), x->leaf, sums) == 0);
    memset(have, 0, sizeof *have);
    if (layer_sums(layer, x->leaf)) block_sums_unpack(layer_sums(layer, x->leaf), have);
    for (uint32_t i = 0; i < SUMS_BLOCKS; i++) {
      bool valid = leaf[i / CLUSTER_BLOCKS].valid >> i % CLUSTER_BLOCKS & 1;
      check(leaf_sums_has(have, i) == (valid && leaf_sums_has(sums, i)));
      if (leaf_sums_has(have, i)) check(have->sum[i] == sums->sum[i]);
    }
  }
  free(again);
  free(have);
  free(sums);
}

static void check_record(const struct record_entry *x, const void *buf, uint32_t n) {
  char *again = fuzz_alloc(entry_record_bytes(RECORD_BYTES_MAX));
  check(x->bytes <= RECORD_BYTES_MAX);
  check(log_entry_record(again, x->key, x->data, x->bytes) == n);
  check(memcmp(again, buf, n) == 0);
  free(again);
}

/* ---- All of them ------------------------------------------------------------------------- */

struct tables {
  struct index *index;
  struct map *map;
  uint64_t key[2];
};

static uint32_t take_entry(struct tables *t, const char *buf, uint64_t left,
                           uint64_t region_blocks) {
  struct entry e;
  struct blob_id id;
  uint32_t peeked = 0;
  const char *why = "";
  bool peeks = log_entry_peek(buf, left, &id, &peeked);
  if (peeks) check(peeked > 0 && peeked % 8 == 0);
  uint32_t n = log_entry_decode(&e, buf, left, region_blocks, &why);
  if (n == 0) {
    check(why[0]);
    return 0;
  }
  check(n <= left && n % 8 == 0 && n <= ENTRY_BYTES_MAX);
  check(peeks && peeked == n);
  check(log_entry_is_put(buf) == (e.type == ENTRY_PUT || e.type == ENTRY_PUT_SMALL));
  if (e.type == ENTRY_RECORD) check_record(&e.record, buf, n);
  if (e.type == ENTRY_SUMS) check_sums(t->map, &e.sums, buf, n);
  if (e.type == ENTRY_MAP || e.type == ENTRY_MOVE)
    check_clusters(t->map, &e, buf, n, region_blocks);
  if (!entry_is_blob(e.type)) return n;
  check(blob_id_equal(id, e.blob.id));
  check_same_bytes(&e, buf, n);
  if (e.type == ENTRY_DELETE) return n;
  check(log_entry_is_put(buf));
  check_put(&e.blob, region_blocks);
  check_in_index(t->index, t->key, &e.blob);
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct tables t = {.key = {1, 2}};
  struct feed f = {data, size};
  uint64_t region_blocks = feed_number(&f, 8) % REGION_BLOCKS_MAX;
  uint64_t left = min_u64(f.left, ENTRY_BYTES);
  char *buf = fuzz_string(f.at, left), *at = buf; /* as frames: aligned to 8 bytes */
  check(index_create(&t.index, t.key) == 0);
  check(map_create(&t.map, t.key) == 0);
  for (uint32_t n = 1; n > 0 && left > 0; at += n, left -= n)
    n = take_entry(&t, at, left, region_blocks);
  index_destroy(t.index);
  map_destroy(t.map);
  free(buf);
  return 0;
}
