/* fuzz_recover.c - manifest_recover(): checkpoints, directory and the whole log of one shard. What
 * it accepts has one owner for each block, and works on; what it refuses, it names; in spite of
 * damage it comes up with what is left, read-only.
 *
 * Input: one byte of flags (1: in spite of damage, too; 2: searching all blocks; 4 and 8: how far
 * it is used), then pieces: region_pieces.h. */
#include <errno.h>
#include <stdlib.h>

#include "tests/fuzz/region_pieces.h"
#include "tests/fuzz/use_manifest.h"

/* Positions and sequences below leave room for what manifest_use() adds. */
#define ROOM (UINT64_C(1) << 59)

static struct manifest_config make_config(struct pieces *p) {
  struct manifest_config c = {.region = &p->region,
                              .hash_key = {pieces_hash_key[0], pieces_hash_key[1]},
                              .shard_count = 1,
                              .incarnation = PIECES_INCARNATION + 1,
                              .clock = clock_monotonic,
                              .logger = fuzz_silent};
  memcpy(c.uuid, pieces_uuid, sizeof c.uuid);
  return c;
}

static void report(void *arg, const struct damage *d) {
  check(d->error != 0);
  check(d->what && d->what[0]);
  log_line(&fuzz_silent, 2, "damage %d: %s", d->kind, d->what);
  ++*(uint64_t *)arg;
}

/* good: the digest of what recovery found without damage. */
static void recover_in_spite(struct manifest_config c, const struct root *root,
                             const uint64_t *good, bool search) {
  struct manifest *m;
  char why[200] = "";
  uint64_t reports = 0;
  c.read_only = true;
  c.damaged = search ? DAMAGED_SEARCH : DAMAGED_SKIP;
  c.damage = (struct damage_sink){.report = report, .arg = &reports};
  int r = manifest_recover(&m, &c, root, why, sizeof why);
  /* Only a root that no writer makes may leave nothing to go by. */
  bool impossible = root->shards[0].log_tail - root->shards[0].log_head > PIECES_LOG_BLOCKS;
  check(r == 0 || (impossible && r == -EBADMSG));
  if (r) return;
  uint64_t digest = manifest_verify_blobs(m);
  check(good || reports > 0);
  if (good) check(digest == *good && reports == 0);
  manifest_destroy(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  struct root *root = fuzz_alloc(sizeof *root);
  struct pieces p;
  pieces_open(&p);
  pieces_take(&p, &f);
  if (pieces_root(&p, root)) {
    struct manifest_config c = make_config(&p);
    struct manifest *m = NULL;
    char why[200] = "";
    uint64_t digest = 0;
    c.device = use_device(&p.region);
    int r = manifest_recover(&m, &c, root, why, sizeof why);
    check(r == 0 || r == -EBADMSG);
    check(r == 0 || why[0]);
    log_line(&fuzz_silent, 2, "%d %s", r, why);
    if (r == 0) digest = manifest_verify(m);
    if (flags & 1) recover_in_spite(c, root, r ? NULL : &digest, flags & 2);
    if (r == 0 && root->shards[0].log_tail < ROOM && root->shards[0].sequence < ROOM)
      manifest_use(m, &c, root, flags >> 2 & 3);
    manifest_destroy(m);
    c.device->ops->destroy(c.device);
  }
  pieces_close(&p);
  free(root);
  return 0;
}
