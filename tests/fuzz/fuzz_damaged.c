/* fuzz_damaged.c - layout_open_damaged() and recovery in spite of damage: whatever is left of a
 * store, what comes up is in range, no block belongs to two blobs, and it is never written to.
 *
 * Input: flags (1 byte; 1: search all blocks; 2: the last backing is not named), the number of
 * backings (1), then pieces: image_pieces.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/layout_internal.h"
#include "tests/fuzz/image_pieces.h"
#include "tests/fuzz/use_manifest.h"

#define SHARDS_TRIED  4u
#define REGION_BLOCKS 100000u /* a length that is claimed costs memory: not here */

/* What a backing holds as a file without a name; its blocks' checksum says whether it changed. */
static int make_file(const struct image *m, uint32_t i) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  check(fd >= 0);
  check(ftruncate(fd, BACKING_BLOCKS << BLOCK_SHIFT) == 0);
  for (uint32_t b = 0; b < BACKING_BLOCKS; b++) {
    off_t at = (off_t)b << BLOCK_SHIFT;
    if (m->touched[i][b])
      check(pwrite(fd, (char *)m->backings[i]->memory + at, BLOCK_BYTES, at) == BLOCK_BYTES);
  }
  return fd;
}

static void check_file(const struct image *m, uint32_t i, int fd) {
  char block[BLOCK_BYTES];
  for (uint32_t b = 0; b < BACKING_BLOCKS; b++) {
    off_t at = (off_t)b << BLOCK_SHIFT;
    if (!m->touched[i][b]) continue;
    check(pread(fd, block, BLOCK_BYTES, at) == BLOCK_BYTES);
    check(memcmp(block, (char *)m->backings[i]->memory + at, BLOCK_BYTES) == 0);
  }
  close(fd);
}

static void report(void *arg, const struct damage *d) {
  (void)arg;
  check(d->error != 0);
  check(d->what && d->what[0]);
  log_line(&fuzz_silent, 2, "damage %d: %s", d->kind, d->what);
}
static const struct damage_sink sink = {.report = report};

static void try_shard(struct layout *l, uint32_t s, enum damaged_mode mode) {
  struct manifest_config c = {.region = &l->regions[s],
                              .hash_key = {l->hash_key[0], l->hash_key[1]},
                              .shard = s,
                              .shard_count = l->shard_count,
                              .incarnation = l->root->incarnation + 1,
                              .clock = clock_monotonic,
                              .logger = fuzz_silent,
                              .read_only = true,
                              .damaged = mode,
                              .damage = sink};
  struct manifest *m = NULL;
  char why[200] = "";
  memcpy(c.uuid, l->uuid, sizeof c.uuid);
  int r = manifest_recover(&m, &c, l->root, why, sizeof why);
  log_line(&fuzz_silent, 2, "shard %u: %d %s", s, r, why);
  check(r == 0 || r == -EBADMSG || r == -EINVAL);
  check(r == 0 || why[0]);
  if (r == 0) manifest_verify_blobs(m);
  manifest_destroy(m);
}

static void check_region(const struct layout *l, const struct region *r) {
  uint64_t blocks = 0;
  check(r->segment_count >= 1 && r->segment_count <= REGION_SEGMENTS_MAX);
  check(r->segments[0].blocks >= r->log_blocks);
  for (uint32_t i = 0; i < r->segment_count; i++) {
    check(r->segments[i].file < l->backing_count);
    check(r->segments[i].backing == l->backings[r->segments[i].file]);
    check(r->segments[i].region_block == blocks);
    check(r->segments[i].blocks <= UINT64_MAX - blocks);
    blocks += r->segments[i].blocks;
  }
  check(blocks == r->blocks);
}

static void try_store(const char *names, enum damaged_mode mode) {
  struct layout *l = NULL;
  int r = layout_open_damaged(&l, names, 0, mode, &sink, &fuzz_silent);
  check((r == 0) == (l != NULL));
  if (r) return;
  check(l->read_only);
  check(l->shard_count >= 1 && l->shard_count <= FORMAT_SHARDS_MAX);
  check(l->root->shard_count == l->shard_count);
  for (uint32_t s = 0; s < l->shard_count; s++) {
    check_region(l, &l->regions[s]);
    if (s < SHARDS_TRIED && l->regions[s].blocks <= REGION_BLOCKS) try_shard(l, s, mode);
  }
  layout_close(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  struct image m;
  char names[64] = "";
  int fds[BACKINGS_MAX];
  image_open(&m, 1 + feed_u8(&f) % BACKINGS_MAX);
  image_take(&m, &f);
  for (uint32_t i = 0; i < m.count; i++) {
    size_t used = strlen(names);
    fds[i] = make_file(&m, i);
    if (i > 0 && i + 1 == m.count && flags & 2) continue;
    snprintf(names + used, sizeof names - used, "%sfd:%d", used ? "," : "", fds[i]);
  }
  try_store(names, flags & 1 ? DAMAGED_SEARCH : DAMAGED_SKIP);
  for (uint32_t i = 0; i < m.count; i++) {
    check_file(&m, i, fds[i]);
    backing_close(m.backings[i]);
  }
  return 0;
}
