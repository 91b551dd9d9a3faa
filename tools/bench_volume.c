/* bench_volume.c - --engine=volume: makes the volumes of a load, fills them, lays snapshots and
 * clones on them, opens them. Main thread.
 *
 *   bench-0              the base, filled; with --chain=D it has snapshots
 *   bench-0-s1 ... sD    made one after the other. Between two of them the volume gets one block in
 *                        1024, so that no layer is empty and nearly all data lies D layers below
 *   bench-0-c0 ...       clones of the last snapshot, made anew by every run
 *
 * Reserved volumes (--reserve, --prealloc=unwritten) are called hollow-0 and so on: which of the
 * two a volume is cannot be seen. A block's contents are a function of its place and the base's
 * number. */
#include "tools/bench.h"
#include "tools/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB           UINT64_C(1048576)
#define FILL_BYTES    MIB
#define SPRINKLE_STEP 1024u

uint32_t bench_integrity(const struct bench_options *o) {
  return o->integrity ? SR_INTEGRITY_OFF : SR_INTEGRITY_SEALED;
}

static void name_of(const struct bench_options *o, uint64_t base, char kind, uint64_t n,
                    char name[64]) {
  int at = snprintf(name, 64, "%s-%u", o->reserve ? "hollow" : "bench", (unsigned)base);
  if (kind) snprintf(name + at, 64 - (size_t)at, "-%c%u", kind, (unsigned)n);
}

/* ---- The base ----------------------------------------------------------------------------- */

static int choose_size(struct bench *b) {
  struct bench_options *o = &b->o;
  struct sr_space space;
  int r = sr_space(b->port, &space);
  if (r < 0) return bench_fail("space", r);
  /* Half of the store; a clone that is written to everywhere takes as much as its base, and what is
   * sprinkled one cluster for each step and layer. */
  double parts = 1 + (bench_is_read(o->rw) ? 0 : 1.5 * (double)o->clones) + (double)o->chain / 64;
  uint64_t beside = o->stripe_bytes || o->volumes > b->shards ? o->volumes : b->shards;
  uint64_t all = (uint64_t)((double)space.total_bytes / 2 / (double)beside / parts);
  if (!o->volume_size_given) o->volume_bytes = all > MIB ? all / MIB * MIB : MIB;
  if (o->volume_bytes < bench_request_bytes(o)) {
    fprintf(stderr, "shard-bench: --volume-size=%llu is less than one request (--bs)\n",
            (unsigned long long)o->volume_bytes);
    return -EINVAL;
  }
  if (o->volume_bytes * o->volumes <= space.total_bytes) return 0;
  fprintf(stderr,
          "shard-bench: --volumes=%llu of %llu bytes do not fit into %llu bytes; use fewer or "
          "smaller ones (--volume-size), or a larger --size\n",
          (unsigned long long)o->volumes, (unsigned long long)o->volume_bytes,
          (unsigned long long)space.total_bytes);
  return -EINVAL;
}

static void fill_step(void *arg, const struct load *l) { progress_step(arg, l->ops, l->count); }

int bench_volume_fill(struct bench *b, struct sr_block *block, uint64_t number, bool reserve) {
  const struct bench_target target = {.block = block, .number = number};
  struct bench_volumes one = {.bytes = sr_block_size_bytes(block)};
  struct bench_volumes *before = b->volumes;
  struct load_config c = {.rw = RW_WRITE,
                          .depth = 16,
                          .batch = 8,
                          .request_bytes = FILL_BYTES,
                          .targets = &target,
                          .target_count = 1,
                          .reserve = reserve};
  struct progress p;
  struct load l;
  sem_t finished;
  while (one.bytes % c.request_bytes) c.request_bytes /= 2; /* down to 512 at most */
  c.count = c.left = one.bytes / c.request_bytes;
  sem_init(&finished, 0, 0);
  c.finished = &finished;
  b->volumes = &one;
  int r = load_init(&l, b, &c);
  b->volumes = before;
  if (r < 0) return bench_fail("buffers", r);
  progress_begin(&p, reserve ? "reserve volume" : "fill volume");
  load_run_here(&l, b->port, 0, fill_step, &p);
  progress_end(&p);
  r = l.first_error;
  if (r == 0 && l.ops < c.count) r = -EINTR;
  b->populate_s += (double)l.elapsed_ns / 1e9;
  load_finish(&l);
  sem_destroy(&finished);
  return r < 0 ? bench_fail("write to a volume", r) : 0;
}

/* One block in SPRINKLE_STEP, others in every layer. */
static int sprinkle(struct bench *b, struct sr_block *block, uint64_t number, uint64_t layer) {
  char *buf = sr_buffer_alloc(b->store, SR_BLOCK_BYTES, true);
  uint64_t blocks = b->o.volume_bytes / SR_BLOCK_BYTES;
  int64_t r = buf ? 0 : -ENOMEM;
  for (uint64_t at = layer % SPRINKLE_STEP; r >= 0 && at < blocks; at += SPRINKLE_STEP) {
    bench_fill(buf, number, b->o.seed, at * SR_BLOCK_BYTES, SR_BLOCK_BYTES);
    r = sr_block_write(b->port, block, buf, at * SR_BLOCK_BYTES, SR_BLOCK_BYTES,
                       b->o.reserve ? SR_RESERVE : 0);
  }
  if (buf) sr_buffer_free(b->store, buf);
  return r < 0 ? bench_fail("write to a volume", (int)r) : 0;
}

static int snap(struct bench *b, uint64_t base, const struct sr_volume_info *info,
                struct sr_block *block) {
  char name[64], snapshot[64];
  int r = 0;
  name_of(&b->o, base, 0, 0, name);
  for (uint64_t i = info->depth + 1; r == 0 && i <= b->o.chain; i++) {
    if (i > 1) r = sprinkle(b, block, base, i);
    name_of(&b->o, base, 's', i, snapshot);
    if (r == 0 && (r = sr_volume_snapshot(b->port, name, snapshot)) < 0) bench_fail(snapshot, r);
  }
  return r;
}

static int create(struct bench *b, uint64_t base, const char *name) {
  const struct bench_options *o = &b->o;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.size_bytes = o->volume_bytes;
  v.striped = o->stripe_bytes != 0;
  v.stripe_bytes = (uint32_t)o->stripe_bytes;
  v.integrity = bench_integrity(o);
  v.on_shard = !v.striped;
  /* One on each core, in turn. */
  uint32_t core = (uint32_t)(base % b->cores), shard = b->core_shard[core];
  v.shard = shard < b->shards ? shard : (uint32_t)(base % b->shards);
  int r = sr_volume_create(b->port, name, &v);
  return r < 0 ? bench_fail(name, r) : 0;
}

/* There, filled and snapshotted; what a run before has left is taken if it is the same. */
static int prepare_base(struct bench *b, uint64_t base) {
  struct sr_volume_info info;
  struct sr_block *block;
  char name[64];
  name_of(&b->o, base, 0, 0, name);
  int r = sr_volume_stat(b->port, name, &info);
  bool there = r == 0;
  if (r < 0 && r != -ENOENT) return bench_fail(name, r);
  if (there && (info.size_bytes != b->o.volume_bytes || info.depth > b->o.chain ||
                (info.stripe_bytes != 0) != (b->o.stripe_bytes != 0) ||
                info.used_bytes + info.shared_bytes < info.size_bytes)) {
    fprintf(stderr,
            "shard-bench: the store has another %s, of %llu bytes with %u snapshots; use the same "
            "--volume-size, --stripe and --chain, or --create --force\n",
            name, (unsigned long long)info.size_bytes, info.depth);
    return -EINVAL;
  }
  if (!there && (r = create(b, base, name)) < 0) return r;
  if (!there) info.depth = 0;
  r = sr_volume_open(b->port, name, NULL, &block);
  if (r < 0) return bench_fail(name, r);
  if (!there) r = bench_volume_fill(b, block, base, b->o.reserve);
  if (r == 0) r = snap(b, base, &info, block);
  int closed = sr_block_close(b->port, block);
  if (!there) b->populated++;
  if (!there && r == -EINTR) sr_volume_remove(b->port, name); /* half of it would not do */
  return r < 0 ? r : closed < 0 ? bench_fail(name, closed) : 0;
}

/* ---- What the load goes to ------------------------------------------------------------------ */

static int remove_if_there(struct bench *b, const char *name) {
  int r = sr_volume_remove(b->port, name);
  return r < 0 && r != -ENOENT ? bench_fail(name, r) : 0;
}

static int open_target(struct bench *b, const char *name, uint64_t base, struct bench_target *t) {
  struct sr_volume_info info;
  int r = sr_volume_open(b->port, name, NULL, &t->block);
  if (r == 0) r = sr_volume_stat(b->port, name, &info);
  t->number = base;
  t->shard = r == 0 ? info.shard : 0;
  return r < 0 ? bench_fail(name, r) : 0;
}

/* Clones lie on the cores in turn: what is sealed below them is read from any core. */
static int open_clone(struct bench *b, uint64_t base, uint64_t clone, struct bench_target *t) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  char name[64], snapshot[64];
  uint32_t shard = b->core_shard[(base + clone) % b->cores];
  name_of(&b->o, base, 's', b->o.chain, snapshot);
  name_of(&b->o, base, 'c', clone, name);
  v.integrity = bench_integrity(&b->o);
  v.on_shard = b->o.stripe_bytes == 0 && shard < b->shards;
  v.shard = v.on_shard ? shard : 0;
  int r = remove_if_there(b, name);
  if (r < 0) return r;
  r = sr_volume_clone(b->port, snapshot, name, &v);
  return r < 0 ? bench_fail(name, r) : open_target(b, name, base, t);
}

static int by_shard(const void *a, const void *b) {
  const struct bench_target *x = a, *y = b;
  return x->shard < y->shard ? -1 : x->shard > y->shard;
}

static int open_targets(struct bench *b, struct bench_volumes *v) {
  uint64_t each = b->o.clones ? b->o.clones : 1;
  int r = 0;
  for (uint64_t base = 0; r == 0 && base < b->o.volumes; base++) {
    for (uint64_t i = 0; r == 0 && i < each; i++, v->count += r == 0) {
      char name[64];
      name_of(&b->o, base, 0, 0, name);
      r = b->o.clones ? open_clone(b, base, i, &v->targets[v->count])
                      : open_target(b, name, base, &v->targets[v->count]);
    }
  }
  if (r == 0) qsort(v->targets, v->count, sizeof(*v->targets), by_shard);
  return r;
}

int bench_volumes_open(struct bench *b) {
  if (b->o.volumes == 0) /* one for each core that runs a load */
    b->o.volumes = b->o.where == WHERE_CORE && !b->o.stripe_bytes ? b->cores : 1;
  int r = choose_size(b);
  for (uint64_t i = 0; r == 0 && i < b->o.volumes; i++) r = prepare_base(b, i);
  /* The raw loop shall meet no traffic of ours. */
  if (r == 0 && (r = sr_flush(b->port)) < 0) bench_fail("flush", r);
  if (r < 0) return r;
  struct bench_volumes *v = calloc(1, sizeof(*v));
  uint64_t count = b->o.volumes * (b->o.clones ? b->o.clones : 1);
  if (v) v->targets = calloc(count, sizeof(*v->targets));
  if (!v || !v->targets) return free(v), bench_fail("volumes", -ENOMEM);
  b->volumes = v;
  v->bytes = b->o.volume_bytes;
  r = open_targets(b, v);
  if (r == 0 && (r = sr_flush(b->port)) < 0) bench_fail("flush", r);
  return r;
}

static void close_targets(struct bench *b) {
  struct bench_volumes *v = b->volumes;
  for (uint32_t i = 0; i < v->count; i++) sr_block_close(b->port, v->targets[i].block);
  v->count = 0;
}

void bench_volumes_close(struct bench *b) {
  if (!b->volumes) return;
  close_targets(b);
  free(b->volumes->targets);
  free(b->volumes);
  b->volumes = NULL;
}

int bench_volumes_renew(struct bench *b) {
  char name[64];
  int r = 0;
  close_targets(b);
  for (uint64_t base = 0; r == 0 && base < b->o.volumes; base++) {
    for (uint64_t i = 0; r == 0 && i < b->o.clones; i++) {
      name_of(&b->o, base, 'c', i, name);
      r = remove_if_there(b, name);
    }
  }
  if (r == 0 && (r = sr_flush(b->port)) < 0) bench_fail("flush", r);
  if (r == 0) r = open_targets(b, b->volumes);
  return r;
}
