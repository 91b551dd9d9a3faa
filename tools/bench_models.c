/* bench_models.c - see bench_models.h. */
#include "tools/bench_models.h"

#include <errno.h>
#include <stdlib.h>

#include "tools/bench_distribution.h"
#include "tools/bench_random.h"

/* ---- kv -------------------------------------------------------------------------------------- */

struct ycsb_mix ycsb_mix_of(enum ycsb which) {
  static const struct ycsb_mix mixes[] = {[YCSB_A] = {.read = 50, .update = 50},
                                          [YCSB_B] = {.read = 95, .update = 5},
                                          [YCSB_C] = {.read = 100},
                                          [YCSB_F] = {.read = 50, .modify = 50}};
  return mixes[which];
}

/* ---- analytics ------------------------------------------------------------------------------- */

uint64_t scan_file_bytes_min(const struct scan_shape *s) {
  return SCAN_HEAD_BYTES + s->chunk_min + s->footer_bytes + SCAN_TAIL_BYTES;
}

struct scan_range scan_footer(const struct scan_shape *s, uint64_t file_bytes) {
  return (struct scan_range){file_bytes - SCAN_TAIL_BYTES - s->footer_bytes, s->footer_bytes};
}

/* The next chunk of a layout that `state` walks through; 0 bytes: there are no more. */
static struct scan_range next_chunk(const struct scan_shape *s, uint64_t end, uint64_t *at,
                                    uint64_t *state) {
  uint64_t left = end - *at, span = s->chunk_max - s->chunk_min + 1;
  uint64_t bytes = s->chunk_min + (uint64_t)(bench_random_unit(state) * (double)span);
  struct scan_range r = {*at, bytes < left ? bytes : left};
  *at += r.bytes;
  return r;
}

/* Two walks: the first one counts them, the second one takes each with the chance that makes all
 * sets alike (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S). */
uint32_t scan_choose(const struct scan_shape *s, uint64_t file_bytes, uint64_t number,
                     uint64_t seed, uint64_t *random, struct scan_range chosen[SCAN_CHUNKS_MAX]) {
  uint64_t first = bench_random_mix(number ^ bench_random_mix(seed + 2)) | 1, state = first;
  uint64_t end = scan_footer(s, file_bytes).offset, at = SCAN_HEAD_BYTES, all = 0;
  uint32_t taken = 0;
  while (next_chunk(s, end, &at, &state).bytes > 0) all++;
  uint32_t wanted = all < s->chunks ? (uint32_t)all : s->chunks;
  state = first;
  at = SCAN_HEAD_BYTES;
  for (uint64_t left = all; taken < wanted; left--) {
    struct scan_range r = next_chunk(s, end, &at, &state);
    if (bench_random_unit(random) * (double)left < (double)(wanted - taken)) chosen[taken++] = r;
  }
  return taken;
}

/* ---- lambda ---------------------------------------------------------------------------------- */

static uint64_t run_blocks(uint64_t *random) {
  uint64_t dice = bench_random(random) >> 32, blocks = 1;
  while (blocks < BOOT_RUN_BYTES / BOOT_BLOCK_BYTES && dice & 1) dice >>= 1, blocks *= 2;
  return blocks;
}

int64_t boot_plan(uint64_t image_bytes, uint64_t seed, struct scan_range **reads) {
  const struct distribution_spec zipf = {DISTRIBUTION_ZIPF, 0.99};
  const uint64_t whole = BOOT_CHUNK_BYTES / BOOT_BLOCK_BYTES;
  uint64_t blocks = image_bytes / BOOT_BLOCK_BYTES, chunks = (blocks + whole - 1) / whole;
  uint64_t wanted = blocks * BOOT_PER_MILLE / 1000, random = bench_random_seed(~seed);
  int64_t count = 0;
  struct distribution d;
  if (wanted == 0) wanted = 1;
  *reads = malloc(wanted * sizeof(**reads));
  uint16_t *read = calloc(chunks, sizeof(*read)); /* blocks of each chunk */
  if (!*reads || !read) {
    free(*reads);
    free(read);
    return -ENOMEM;
  }
  distribution_init(&d, &zipf, chunks, seed);
  while (wanted > 0) {
    uint64_t chunk = distribution_pick(&d), n = run_blocks(&random), size;
    for (;; chunk = (chunk + 1) % chunks) { /* what has been read whole is not read again */
      size = chunk + 1 < chunks ? whole : blocks - chunk * whole;
      if (read[chunk] < size) break;
    }
    if (n > size - read[chunk]) n = size - read[chunk];
    if (n > wanted) n = wanted;
    (*reads)[count++] =
        (struct scan_range){(chunk * whole + read[chunk]) * BOOT_BLOCK_BYTES, n * BOOT_BLOCK_BYTES};
    read[chunk] = (uint16_t)(read[chunk] + n);
    wanted -= n;
  }
  free(read);
  return count;
}
