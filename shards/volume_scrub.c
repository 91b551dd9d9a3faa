/* volume_scrub.c - see volume_scrub.h. Owned by the shard's thread.
 *
 * Each read looks up anew what it reads, keeps a copy of the checksums, and is a reader of the
 * space until it is done. What does not fit is damage only if the layer still has the block there
 * with the same checksum: a merge may have given the place to a live layer meanwhile. In a layer
 * that is written to, a write that is in flight there may have brought the data already: then it is
 * read again. Layers that are sealed during the pass are left to the next one. */
#include "shards/volume_scrub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/volume_internal.h"

#define LEAVES_PER_STEP 64u
#define TRIES_MAX       100u /* of a read beside writes */

/* ---- Which layers ---------------------------------------------------------------------------- */

static uint64_t summed_blocks(const struct layer *layer) {
  struct layer_stats stats;
  layer_stats(layer, &stats);
  return stats.summed_blocks;
}

uint64_t volume_scrub_bytes(const struct shard *s) {
  const struct map *map = manifest_map(s->manifest);
  uint64_t blocks = 0;
  for (struct layer *l = NULL; (l = map_layer_next(map, l)) != NULL;) blocks += summed_blocks(l);
  return blocks << BLOCK_SHIFT;
}

/* Without memory: none, and the next pass has them. */
static void begin(struct volume_scrub *v) {
  const struct map *map = manifest_map(v->shard->manifest);
  uint32_t count = 0;
  v->begun = true;
  for (struct layer *l = NULL; (l = map_layer_next(map, l)) != NULL;) count += summed_blocks(l) > 0;
  v->layers = count ? malloc(count * sizeof *v->layers) : NULL;
  for (struct layer *l = NULL; v->layers && (l = map_layer_next(map, l)) != NULL;)
    if (summed_blocks(l)) v->layers[v->layer_count++] = layer_id(l);
}

void volume_scrub_init(struct volume_scrub *v, struct shard *s, char *bufs) {
  *v = (struct volume_scrub){.shard = s};
  for (uint32_t i = 0; i < VSCRUB_READS; i++) {
    v->reads[i].of = v;
    v->reads[i].io.buf = bufs + (size_t)i * SCRUB_IO_BYTES;
  }
}

void volume_scrub_finish(struct volume_scrub *v) {
  free(v->layers);
  v->layers = NULL;
}

/* ---- Findings -------------------------------------------------------------------------------- */

/* The layer still has the block where it was read, with that checksum. */
static bool still_there(const struct shard *s, const struct vscrub_read *x, uint32_t i) {
  const struct layer *layer = map_layer(manifest_map(s->manifest), x->layer);
  uint64_t block = x->block + i;
  if (!layer) return false;
  struct cluster c = layer_get(layer, block / CLUSTER_BLOCKS);
  const struct block_sums *sums = layer_sums(layer, block / LEAF_BLOCKS);
  uint32_t at = block % LEAF_BLOCKS;
  return c.place + block % CLUSTER_BLOCKS == x->place + i && sums && block_sums_has(sums, at) &&
         block_sums_at(sums, at) == x->sums[i];
}

/* A write is on its way to the block. */
static bool is_written(struct shard *s, const struct vscrub_read *x, uint32_t i) {
  const struct layer *layer = map_layer(manifest_map(s->manifest), x->layer);
  if (!layer_is_live(layer) || !layer_is_pinned(layer, x->block / LEAF_BLOCKS)) return false;
  for (struct volume *v = s->volumes ? s->volumes->open : NULL; v; v = v->next)
    if (v->top == layer && !v->read_only)
      return volume_cluster_is_written(s, v, (x->block + i) / CLUSTER_BLOCKS, NULL);
  return false;
}

static void report(struct shard *s, const struct vscrub_read *x, uint32_t i, uint32_t bad,
                   int error) {
  char text[160];
  snprintf(text, sizeof text,
           "volume layer %llu block %llu: %s at region block %u (%u block%s of this read)",
           (unsigned long long)x->layer, (unsigned long long)(x->block + i),
           error == -EBADMSG ? "checksum mismatch" : "cannot be read", x->place + i, bad,
           bad == 1 ? "" : "s");
  struct damage d = {.kind = DAMAGE_VOLUME,
                     .error = error,
                     .shard = s->config.manifest.shard,
                     .blocks = 1,
                     .id = {x->layer, x->block + i},
                     .what = text};
  damage_place(&d, s->region, x->place + i);
  damage_report(&s->config.manifest.damage, &d);
}

static bool does_not_fit(const struct vscrub_read *x, uint32_t i) {
  const char *data = x->io.buf;
  return x->io.result || crc32c(0, data + ((size_t)i << BLOCK_SHIFT), BLOCK_BYTES) != x->sums[i];
}

/* Some block of it does not fit, and is being written: its bytes and checksums anew. False: they
 * have changed, or it is always so: left to the next pass. */
static bool read_again(struct shard *s, struct vscrub_read *x) {
  const struct layer *layer = map_layer(manifest_map(s->manifest), x->layer);
  const struct block_sums *sums = layer_sums(layer, x->block / LEAF_BLOCKS);
  if (x->tries++ == TRIES_MAX || !sums) return false;
  for (uint32_t i = 0; i < x->count; i++) {
    uint32_t at = (x->block + i) % LEAF_BLOCKS;
    if (!block_sums_has(sums, at)) return false;
    x->sums[i] = block_sums_at(sums, at);
    if (!still_there(s, x, i)) return false;
  }
  x->generation = space_read_begin(s->space);
  device_submit(s->device, &x->io);
  return true;
}

static void read_done(struct io *io) {
  struct vscrub_read *x = container_of(io, struct vscrub_read, io);
  struct volume_scrub *v = x->of;
  struct shard *s = v->shard;
  struct shard_scrub_stats *st = &s->scrub_stats;
  uint32_t first = x->count, bad = 0;
  bool written = false;
  space_read_end(s->space, x->generation);
  for (uint32_t i = 0; i < x->count; i++) {
    if (!does_not_fit(x, i) || !still_there(s, x, i)) continue;
    if (is_written(s, x, i))
      written = true;
    else if (!bad++)
      first = i;
  }
  if (written && read_again(s, x)) return;
  x->busy = false;
  v->busy--;
  st->blocks += x->count;
  st->done_bytes += (uint64_t)x->count << BLOCK_SHIFT;
  st->damaged_blocks += bad;
  if (!bad) return;
  st->unreadable += io->result != 0;
  report(s, x, first, bad, io->result ? io->result : -EBADMSG);
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* The next block of a leaf with a checksum at or after one; LEAF_BLOCKS: none. */
static uint32_t next_summed(const struct block_sums *sums, uint32_t at) {
  while (sums && at < LEAF_BLOCKS && !block_sums_has(sums, at)) at++;
  return sums ? at : LEAF_BLOCKS;
}

static uint32_t place_of(const struct cluster *clusters, uint32_t at) {
  return clusters[at / CLUSTER_BLOCKS].place + at % CLUSTER_BLOCKS;
}

/* Moves v->next to a block that has a checksum. NULL: no layer has more; *more: not found yet. */
static struct layer *find_next(struct volume_scrub *v, bool *more) {
  const struct map *map = manifest_map(v->shard->manifest);
  for (uint32_t looked = 0; v->at < v->layer_count; looked++) {
    struct layer *layer = map_layer(map, v->layers[v->at]);
    uint64_t leaf = layer ? layer_next_leaf(layer, v->next / LEAF_BLOCKS) : UINT64_MAX;
    if (leaf == UINT64_MAX) {
      v->at++;
      v->next = 0;
      continue;
    }
    v->next = max_u64(v->next, leaf * LEAF_BLOCKS);
    uint32_t at = next_summed(layer_sums(layer, leaf), v->next % LEAF_BLOCKS);
    v->next = leaf * LEAF_BLOCKS + at;
    if (at < LEAF_BLOCKS) return layer;
    if (looked == LEAVES_PER_STEP) {
      *more = true;
      return NULL;
    }
  }
  return NULL;
}

static uint64_t read_next(struct volume_scrub *v, struct vscrub_read *x,
                          const struct layer *layer) {
  struct shard *s = v->shard;
  uint64_t leaf = v->next / LEAF_BLOCKS;
  uint32_t at = v->next % LEAF_BLOCKS, n = 1;
  const struct cluster *clusters = layer_leaf(layer, leaf);
  const struct block_sums *sums = layer_sums(layer, leaf);
  while (n < VSCRUB_BLOCKS && at + n < LEAF_BLOCKS && block_sums_has(sums, at + n) &&
         place_of(clusters, at + n) == place_of(clusters, at) + n)
    n++;
  x->layer = layer_id(layer);
  x->block = v->next;
  x->place = place_of(clusters, at);
  x->io = (struct io){.done = read_done, .buf = x->io.buf, .op = IO_READ};
  x->count = (uint32_t)region_map(s->region, x->place, n, &x->io);
  x->io.bytes = x->count << BLOCK_SHIFT;
  for (uint32_t i = 0; i < x->count; i++) x->sums[i] = block_sums_at(sums, at + i);
  x->generation = space_read_begin(s->space);
  x->tries = 0;
  x->busy = true;
  v->busy++;
  v->next += x->count;
  device_submit(s->device, &x->io);
  return x->io.bytes;
}

uint64_t volume_scrub_step(struct volume_scrub *v, uint64_t bytes, bool *more) {
  uint64_t done = 0;
  if (!v->begun) begin(v);
  for (uint32_t i = 0; i < VSCRUB_READS && done < bytes; i++) {
    if (v->reads[i].busy) continue;
    const struct layer *layer = find_next(v, more);
    if (!layer) break;
    done += read_next(v, &v->reads[i], layer);
  }
  v->finished = v->at == v->layer_count && !v->busy;
  return done;
}
