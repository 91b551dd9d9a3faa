/* bench_verify.c - --workload=verify: rounds of mixed requests from several threads on volumes, and
 * beside them, from the main thread, flushes, snapshots, clones, removals, rolling back and
 * flattening. After each round all that exists is read and compared, the store is opened again
 * (every other time as after kill -9, behind a flush) and all is compared once more. */
#include "tools/bench_verify.h"
#include "tools/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS      4u
#define STEP_NS     5000000 /* between two acts */
#define BASES       3u
#define SECTORS_MAX UINT64_C(524288) /* of a volume: 256 MiB; what is compared in every round */

static struct live live;
static struct live_line *bar;
static uint64_t bar_start, bar_end;

/* ---- Disks -------------------------------------------------------------------------------- */

static struct vdisk *find_slot(struct verify *v, bool snapshot) {
  uint32_t first = snapshot ? VDISKS_LIVE : 0, n = snapshot ? VDISKS_SNAPS : VDISKS_LIVE;
  for (uint32_t i = first; i < first + n; i++)
    if (!v->disks[i].used) return &v->disks[i];
  return NULL;
}

/* One that is there; NULL: none. */
static struct vdisk *choose(struct verify *v, bool snapshot) {
  uint32_t first = snapshot ? VDISKS_LIVE : 0, n = snapshot ? VDISKS_SNAPS : VDISKS_LIVE;
  uint32_t at = (uint32_t)verify_random(&v->random, n);
  for (uint32_t i = 0; i < n; i++) {
    struct vdisk *d = &v->disks[first + (at + i) % n];
    if (d->used) return d;
  }
  return NULL;
}

static uint32_t count(const struct verify *v, bool snapshot) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < VDISKS_LIVE + VDISKS_SNAPS; i++)
    sum += v->disks[i].used && v->disks[i].snapshot == snapshot;
  return sum;
}

static int failed(struct verify *v, const struct vdisk *d, const char *what, int r) {
  char text[64];
  if (r >= 0) return r;
  snprintf(text, sizeof(text), "%s %s", what, d->name);
  bench_fail(text, r);
  verify_fail(v, r);
  return r;
}

static void disk_init(struct verify *v, struct vdisk *d, const char *kind, uint32_t align) {
  d->used = true;
  d->parent = -1;
  d->align = align;
  d->in_flight = 0;
  snprintf(d->name, sizeof(d->name), "verify-%s-%u", kind, v->names++);
}

static int disk_allocate(struct vdisk *d, uint64_t sectors) {
  d->sectors = sectors;
  d->done = calloc(sectors, sizeof(*d->done));
  d->sent = calloc(sectors, sizeof(*d->sent));
  d->busy = calloc(sectors / 64 + 1, sizeof(*d->busy));
  return d->done && d->sent && d->busy ? pthread_mutex_init(&d->lock, NULL) : -ENOMEM;
}

static int disk_open(struct verify *v, struct vdisk *d) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  o.read_only = d->snapshot;
  return failed(v, d, "open", sr_volume_open(v->b->port, d->name, &o, &d->block));
}

static int disk_close(struct verify *v, struct vdisk *d) {
  int r = sr_block_close(v->b->port, d->block);
  d->block = NULL;
  return failed(v, d, "close", r);
}

static void show(struct vdisk *d, bool open) {
  pthread_mutex_lock(&d->lock);
  d->open = open;
  pthread_mutex_unlock(&d->lock);
}

/* Takes the disk away from the threads: nothing is in flight on it any more. */
static int hide(struct verify *v, struct vdisk *d) {
  const struct timespec moment = {.tv_nsec = 100000};
  show(d, false);
  for (;;) {
    pthread_mutex_lock(&d->lock);
    uint32_t left = d->in_flight;
    pthread_mutex_unlock(&d->lock);
    if (left == 0 || atomic_load(&v->error)) return atomic_load(&v->error);
    nanosleep(&moment, NULL);
  }
}

static void copy_tokens(const struct verify *v, struct vdisk *to, const struct vdisk *from) {
  memcpy(to->done, from->done, v->volume_sectors * sizeof(*to->done));
  memcpy(to->sent, from->done, v->volume_sectors * sizeof(*to->sent));
}

/* ---- What is done beside requests ------------------------------------------------------------ */

static void act_snapshot(struct verify *v) {
  struct vdisk *d = choose(v, false), *s = find_slot(v, true);
  size_t bytes = v->volume_sectors * sizeof(uint32_t);
  struct vload load = {malloc(bytes), malloc(bytes)};
  if (!d || !s || !load.before || !load.after) goto out;
  disk_init(v, s, "snapshot", d->align);
  pthread_mutex_lock(&d->lock);
  memcpy(s->done, d->done, bytes);
  memcpy(load.before, d->sent, bytes);
  pthread_mutex_unlock(&d->lock);
  int r = failed(v, s, "snapshot", sr_volume_snapshot(v->b->port, d->name, s->name));
  pthread_mutex_lock(&d->lock);
  memcpy(load.after, d->sent, bytes);
  pthread_mutex_unlock(&d->lock);
  if (r == 0 && disk_open(v, s) == 0) {
    verify_disk(v, s, &load);
    d->parent = (int)(s - v->disks);
  }
  v->snapshots++;
out:
  free(load.before);
  free(load.after);
}

static void act_clone(struct verify *v) {
  struct vdisk *s = choose(v, true), *d = find_slot(v, false);
  if (!d || !s) return;
  disk_init(v, d, "clone", s->align);
  copy_tokens(v, d, s);
  if (failed(v, d, "clone", sr_volume_clone(v->b->port, s->name, d->name, NULL)) < 0) return;
  d->parent = (int)(s - v->disks);
  if (disk_open(v, d) < 0) return;
  v->clones++;
  show(d, true);
}

/* A volume or a snapshot, whatever lies on it; a few stay. */
static void act_remove(struct verify *v, bool snapshot) {
  struct vdisk *d = choose(v, snapshot);
  if (!d || count(v, snapshot) < (snapshot ? 3 : BASES + 1)) return;
  if (!snapshot && hide(v, d) != 0) return;
  if (disk_close(v, d) < 0) return;
  if (failed(v, d, "remove", sr_volume_remove(v->b->port, d->name)) < 0) return;
  d->used = false;
  for (uint32_t i = 0; snapshot && i < VDISKS_LIVE; i++)
    if (v->disks[i].parent == d - v->disks) v->disks[i].parent = -1;
  v->removals++;
}

static void act_rollback(struct verify *v) {
  struct vdisk *d = choose(v, false);
  if (!d || d->parent < 0 || hide(v, d) != 0) return;
  struct vdisk *s = &v->disks[d->parent];
  if (disk_close(v, d) < 0) return;
  if (failed(v, d, "roll back", sr_volume_rollback(v->b->port, d->name, s->name)) < 0) return;
  copy_tokens(v, d, s);
  if (disk_open(v, d) < 0) return;
  v->rollbacks++;
  show(d, true);
}

static void act_flatten(struct verify *v) {
  struct vdisk *d = choose(v, false);
  if (!d) return;
  d->parent = -1;
  failed(v, d, "flatten", sr_volume_flatten(v->b->port, d->name));
  v->flattens++;
}

static void act(struct verify *v) {
  uint64_t dice = verify_random(&v->random, 100);
  if (dice < 25) {
    int r = sr_flush(v->b->port);
    if (r < 0) bench_fail("flush", r), verify_fail(v, r);
    v->flushes++;
  } else if (dice < 45) {
    act_snapshot(v);
  } else if (dice < 60) {
    act_clone(v);
  } else if (dice < 72) {
    act_remove(v, true);
  } else if (dice < 82) {
    act_remove(v, false);
  } else if (dice < 88) {
    act_rollback(v);
  } else if (dice < 93) {
    act_flatten(v);
  } else {
    struct vdisk *s = choose(v, true);
    if (s) verify_disk(v, s, NULL);
  }
}

static void step(struct verify *v) {
  const struct timespec moment = {.tv_nsec = STEP_NS};
  nanosleep(&moment, NULL);
  if (bench_stop_signal()) atomic_store(&v->stop, true);
  if (!atomic_load(&v->stop)) act(v);
  live_add(&live, atomic_load(&v->ops) - live_ops(&live, 1), 0, 0);
  if (v->b->o.ops)
    live_step(bar, atomic_load(&v->ops), v->b->o.ops);
  else
    live_step(bar, bench_now_ns() - bar_start, bar_end - bar_start);
}

/* ---- Rounds --------------------------------------------------------------------------------- */

/* All that exists, and nothing else. */
static int check_all(struct verify *v) {
  struct sr_volume_info infos[16];
  uint32_t there = 0, known = 0;
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "";
  int n, r = 0;
  for (uint32_t i = 0; r == 0 && i < VDISKS_LIVE + VDISKS_SNAPS; i++) {
    if (!v->disks[i].used) continue;
    known++;
    r = verify_disk(v, &v->disks[i], NULL);
  }
  while (r == 0 && (n = sr_volume_list(v->b->port, after, infos, 16)) > 0) {
    for (int i = 0; i < n; i++) there += strncmp(infos[i].name, "verify-", 7) == 0;
    snprintf(after, sizeof(after), "%s", infos[n - 1].name);
  }
  if (r < 0 || there == known) return r;
  fprintf(stderr, "shard-bench: verify: %u volumes are listed where %u were expected\n", there,
          known);
  verify_fail(v, -EBADMSG);
  return -EBADMSG;
}

static int reopen(struct verify *v, bool kill) {
  struct bench *b = v->b;
  int r = sr_flush(b->port);
  if (r < 0) return bench_fail("flush", r);
  if (b->o.device == DEVICE_MEM) return 0; /* gone with the close */
  for (uint32_t i = 0; i < VDISKS_LIVE + VDISKS_SNAPS; i++)
    if (v->disks[i].used && (r = disk_close(v, &v->disks[i])) < 0) return r;
  if (kill) {
    sr_port_close(b->port);
    sr_store_abandon(b->store);
    b->port = NULL;
    b->store = NULL;
  } else {
    r = bench_close(b);
  }
  if (r == 0) r = bench_open(b);
  for (uint32_t i = 0; r == 0 && i < VDISKS_LIVE + VDISKS_SNAPS; i++)
    if (v->disks[i].used) r = disk_open(v, &v->disks[i]);
  v->reopens++;
  return r < 0 ? r : check_all(v);
}

static int run_round(struct verify *v, uint32_t round) {
  const struct bench_options *o = &v->b->o;
  v->ops_max = o->ops ? (o->ops * (round + 1) + ROUNDS - 1) / ROUNDS : 0;
  for (uint32_t i = 0; i < VDISKS_LIVE; i++)
    if (v->disks[i].used) show(&v->disks[i], true);
  int r = verify_io_run(v, (uint32_t)o->numjobs, (uint64_t)(o->runtime_s * 1e9) / ROUNDS, step);
  for (uint32_t i = 0; r == 0 && i < VDISKS_LIVE; i++)
    if (v->disks[i].used) show(&v->disks[i], false);
  if (r == 0 && bench_stop_signal()) return -EINTR;
  if (r == 0) r = check_all(v);
  return r < 0 ? r : reopen(v, round % 2 == 1);
}

/* ---- Beginning and end ------------------------------------------------------------------------
 */

static int choose_size(struct verify *v) {
  struct bench_options *o = &v->b->o;
  struct sr_space space;
  int r = sr_space(v->b->port, &space);
  if (r < 0) return bench_fail("space", r);
  /* All volumes and snapshots may differ everywhere, in one shard, and twice: what is removed comes
   * back by and by. */
  uint64_t most = space.total_bytes / v->b->shards / (2 * (VDISKS_LIVE + VDISKS_SNAPS)) / VSECTOR;
  if (most > SECTORS_MAX) most = SECTORS_MAX;
  v->volume_sectors = (o->volume_size_given ? o->volume_bytes / VSECTOR : most) / 8 * 8;
  if (v->volume_sectors >= 8 && v->volume_sectors <= most) return 0;
  fprintf(stderr,
          "shard-bench: --volume-size: %llu bytes are not possible here; legal: 4096 to %llu, as "
          "up to %u volumes and snapshots must fit in one shard; or a larger --size\n",
          (unsigned long long)v->volume_sectors * VSECTOR, (unsigned long long)most * VSECTOR,
          VDISKS_LIVE + VDISKS_SNAPS);
  return -EINVAL;
}

/* What a run before has left: its contents are unknown. */
static int remove_old(struct verify *v) {
  struct sr_volume_info info;
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "verify";
  int r = 0;
  while (r == 0 && (r = sr_volume_list(v->b->port, after, &info, 1)) == 1) {
    snprintf(after, sizeof(after), "%s", info.name);
    if (strncmp(after, "verify-", 7) != 0) return 0;
    r = sr_volume_remove(v->b->port, after);
  }
  return r < 0 ? bench_fail("volumes of another run", r) : 0;
}

/* One whole on a shard, one of blocks of 4 KiB and without checksums, one striped. */
static int create_bases(struct verify *v) {
  const struct bench_options *o = &v->b->o;
  int r = 0;
  for (uint32_t i = 0; r == 0 && i < BASES; i++) {
    struct sr_volume_options options = SR_VOLUME_OPTIONS_INIT;
    struct vdisk *d = find_slot(v, false);
    options.size_bytes = v->volume_sectors * VSECTOR;
    options.block_bytes = i == 1 ? 4096 : 512;
    options.integrity = i == 1 ? SR_INTEGRITY_OFF : bench_integrity(o);
    options.striped = i == 2 || o->stripe_bytes;
    options.stripe_bytes = !options.striped  ? 0
                           : o->stripe_bytes ? (uint32_t)o->stripe_bytes
                                             : 65536;
    disk_init(v, d, "volume", options.block_bytes / VSECTOR);
    for (uint64_t s = 0; s < v->volume_sectors; s++) d->done[s] = d->sent[s] = VZEROS;
    r = failed(v, d, "create", sr_volume_create(v->b->port, d->name, &options));
    if (r == 0) r = disk_open(v, d);
  }
  return r;
}

static int begin(struct verify *v) {
  int r = choose_size(v);
  for (uint32_t i = 0; r == 0 && i < VDISKS_LIVE + VDISKS_SNAPS; i++) {
    v->disks[i].snapshot = i >= VDISKS_LIVE;
    if ((r = disk_allocate(&v->disks[i], v->volume_sectors)) < 0) bench_fail("bookkeeping", r);
  }
  if (r == 0) r = remove_old(v);
  return r < 0 ? r : create_bases(v);
}

static void finish(struct verify *v) {
  for (uint32_t i = 0; i < VDISKS_LIVE + VDISKS_SNAPS; i++) {
    struct vdisk *d = &v->disks[i];
    if (d->used && d->block && v->b->port) sr_block_close(v->b->port, d->block);
    free(d->done);
    free(d->sent);
    free(d->busy);
  }
  free(v);
}

static void report(const struct verify *v, struct bench_figures *f) {
  bench_figure(f, "requests", (double)v->ops, "", NULL);
  bench_figure(f, "reads", (double)v->reads, "", NULL);
  bench_figure(f, "writes", (double)v->writes, "", NULL);
  bench_figure(f, "write-zeroes", (double)v->zeroes, "", NULL);
  bench_figure(f, "discards", (double)v->discards, "", NULL);
  bench_figure(f, "syncs", (double)v->syncs, "", NULL);
  bench_figure(f, "races", (double)v->races, "", "two writes of one block at once");
  bench_figure(f, "flushes", (double)v->flushes, "", "of the store");
  bench_figure(f, "snapshots", (double)v->snapshots, "", "under load");
  bench_figure(f, "clones", (double)v->clones, "", NULL);
  bench_figure(f, "removals", (double)v->removals, "", NULL);
  bench_figure(f, "rollbacks", (double)v->rollbacks, "", NULL);
  bench_figure(f, "flattens", (double)v->flattens, "", NULL);
  bench_figure(f, "checks", (double)v->checks, "", "of all of a volume or snapshot");
  bench_figure(f, "reopens", (double)v->reopens, "", "every other one as after kill -9");
  bench_figure(f, "errors", v->error ? 1 : 0, "",
               v->error              ? NULL
               : bench_stop_signal() ? "all that was read was as written"
                                     : "all data as written");
}

int bench_work_verify(struct bench *b, struct bench_figures *figures) {
  struct live_line p;
  struct verify *v = calloc(1, sizeof(*v));
  if (!v) return bench_fail("verify", -ENOMEM);
  v->b = b;
  v->seed = b->o.seed;
  v->random = (b->o.seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
  int r = begin(v);
  live_begin(&p, "verify", &live, 1);
  bar = &p;
  bar_start = bench_now_ns();
  bar_end = bar_start + (uint64_t)(b->o.runtime_s * 1e9);
  for (uint32_t i = 0; r == 0 && i < ROUNDS; i++) r = run_round(v, i);
  live_end(&p);
  report(v, figures);
  finish(v);
  return r;
}
