/* bench_store.c - makes, opens and fills the store that is measured. Main thread. */
#include "tools/bench.h"
#include "tools/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB UINT64_C(1048576)

static const char *remedy(int error) {
  switch (error) {
  case -ENOENT:
    return "nothing is there: --create makes a store";
  case -EEXIST:
    return "there is one already: leave --create away, or add --force";
  case -EBUSY:
    return "another process has it open";
  case -EMEDIUMTYPE:
    return "this is no store, or parts of several";
  case -ENOSPC:
    return "full: use a larger --size, or fewer --blobs";
  case -EBADMSG:
    return "damaged, or not what --verify expects; shard-ctl check tells more";
  case -EACCES:
    return "no permission";
  case -EINVAL:
    return "an option is out of range (16 MiB a shard is the least)";
  case -ENOTSUP:
    return "a newer or unknown format";
  case -EROFS:
    return "only reading is possible";
  case -ENOSYS:
    return "not in this build or not on this system";
  default:
    return NULL;
  }
}

int bench_fail(const char *what, int error) {
  const char *text = remedy(error);
  if (error == -EINTR && bench_stop_signal()) return error; /* it knows */
  fprintf(stderr, "shard-bench: %s: %s%s%s\n", what, strerror(-error), text ? ": " : "",
          text ? text : "");
  return error;
}

int bench_create(const struct bench_options *o) {
  struct progress p;
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  if (strncmp(o->store, "mem:", 4) == 0) return 0; /* made by opening it */
  f.size_bytes = o->size_bytes;
  f.shards = (uint32_t)o->shards;
  f.force = o->force;
  /* A long log: no checkpoint is written among the blobs while the store is filled, and so the raw
   * loop, too, meets unwritten blocks only. */
  if (o->prealloc == PREALLOC_UNWRITTEN) {
    uint64_t quarter = o->size_bytes / (o->shards ? o->shards : 1) / 4;
    f.log_bytes = quarter < 256 * MIB ? quarter : 256 * MIB;
  }
  f.prealloc = o->prealloc == PREALLOC_FULL     ? SR_PREALLOC_FULL
               : o->prealloc == PREALLOC_SPARSE ? SR_PREALLOC_SPARSE
                                                : SR_PREALLOC_DEFAULT;
  f.progress = progress_callback;
  f.progress_arg = &p;
  progress_begin(&p, "format");
  int r = sr_format(o->where_text, &f);
  progress_end(&p);
  return r < 0 ? bench_fail(o->store, r) : 0;
}

static uint64_t arena_bytes(const struct bench_options *o, uint64_t cores) {
  uint64_t one = (bench_request_bytes(o) + 4095) / 4096 * 4096 * o->iodepth;
  uint64_t loads = o->where == WHERE_CORE ? cores : o->numjobs;
  uint64_t fill = (o->blob_bytes + 4095) / 4096 * 4096 * 64;
  uint64_t all = one * loads + (fill < 256 * MIB ? fill : 256 * MIB) + 16 * MIB;
  if (all < 64 * MIB) all = 64 * MIB;
  return all < 1024 * MIB ? all : 1024 * MIB; /* what exceeds it is ordinary memory */
}

static void find_cores(struct bench *b) {
  b->cores = sr_core_count(b->store);
  b->shards = sr_shard_count(b->store);
  for (uint32_t i = 0; i < SR_CORES_MAX; i++) b->core_shard[i] = SR_SHARDS_MAX;
  for (uint32_t s = b->shards; s-- > 0;) b->core_shard[sr_core_of_shard(b->store, s)] = s;
}

int bench_open(struct bench *b) {
  static const char *const engines[] = {"uring", "pool", "mem", "null"};
  const struct bench_options *o = &b->o;
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  open.cores = o->core_list[0] ? o->core_list : NULL;
  open.core_count = o->core_count;
  open.engine = o->device_given || o->device != DEVICE_URING ? engines[o->device] : NULL;
  open.must_engine = o->device_given && o->device == DEVICE_URING;
  if (o->device == DEVICE_MEM) open.engine = NULL; /* mem: brings its own */
  /* Nothing may be written in the background where reads shall stay off the device. */
  open.no_background = o->prealloc == PREALLOC_UNWRITTEN || o->reserve;
  uint64_t depth = o->where == WHERE_CORE ? o->iodepth : o->iodepth * o->numjobs;
  /* Up to what is the default anyway the store's settings decide. */
  open.queue_depth = (uint32_t)(depth <= 256 ? 0 : depth > 4096 ? 4096 : depth);
  open.settings = o->settings && strcmp(o->settings, "none") == 0 ? "" : o->settings;
  open.arena_bytes = arena_bytes(o, open.core_count ? open.core_count : 4);
  open.seed = o->seed;
  int r = sr_store_open(o->where_text, &open, &b->store);
  if (r < 0) return bench_fail(o->store, r);
  find_cores(b);
  r = sr_port_open(b->store, NULL, &b->port);
  if (r < 0) {
    bench_fail("port", r);
    bench_close(b);
    return r;
  }
  memset(&b->at_open, 0, sizeof(b->at_open));
  return sr_store_stats(b->port, &b->at_open);
}

int bench_close(struct bench *b) {
  bench_volumes_close(b);
  sr_port_close(b->port);
  b->port = NULL;
  int r = sr_store_close(b->store);
  b->store = NULL;
  return r < 0 ? bench_fail("close", r) : 0;
}

/* ---- Blobs -------------------------------------------------------------------------------- */

/* Those of other cores must be there for --remote. */
static int check_remote(const struct bench *b) {
  uint32_t cores = 0;
  for (uint32_t i = 0; i < b->cores; i++) cores += b->core_shard[i] != SR_SHARDS_MAX;
  if (!b->o.remote_given || (cores >= 2 && b->o.blobs >= 8 * cores)) return 0;
  fprintf(stderr,
          "shard-bench: --remote needs at least two cores that own shards, and 8 --blobs for each; "
          "the store runs on %u, with %u shards and %llu blobs (see --cores and --shards)\n",
          cores, b->shards, (unsigned long long)b->o.blobs);
  return -EINVAL;
}

/* Half of the data area: room for what is overwritten, and for chance in the spreading of ids
 * over the shards. */
static int choose_blobs(struct bench *b) {
  struct sr_space space;
  int r = sr_space(b->port, &space);
  if (r < 0) return bench_fail("space", r);
  uint64_t each = (b->o.blob_bytes + 4095) / 4096 * 4096;
  if (b->o.sizes.kind) each = (uint64_t)sizes_mean(&b->o.sizes, UINT32_MAX, b->o.seed, 4096);
  if (!b->o.blobs_given) {
    b->o.blobs = space.total_bytes / 2 / each;
    if (b->o.blobs > UINT32_MAX) b->o.blobs = UINT32_MAX;
    if (b->o.blobs < 1) b->o.blobs = 1;
  }
  if (b->o.blobs * each <= space.total_bytes) return check_remote(b);
  fprintf(stderr,
          "shard-bench: --blobs=%llu of %llu bytes need %llu bytes, the store has %llu; use fewer, "
          "or a larger --size\n",
          (unsigned long long)b->o.blobs, (unsigned long long)each,
          (unsigned long long)(b->o.blobs * each), (unsigned long long)space.total_bytes);
  return -EINVAL;
}

/* Whether a run before this one has left the blobs that we need: all are there if the first,
 * the last and the number are right. */
static bool is_filled(struct bench *b) {
  uint64_t first = 0, last = 0;
  if (sr_count(b->port) < (int64_t)b->o.blobs) return false;
  if (sr_stat(b->port, bench_id(0, b->o.seed), &first) < 0) return false;
  if (sr_stat(b->port, bench_id(b->o.blobs - 1, b->o.seed), &last) < 0) return false;
  return first == bench_blob_bytes(&b->o, 0) && last == bench_blob_bytes(&b->o, b->o.blobs - 1);
}

static void fill_step(void *arg, const struct load *l) { progress_step(arg, l->ops, l->count); }

static int fill(struct bench *b) {
  sem_t finished;
  struct progress p;
  struct load l;
  uint64_t depth = 256 * MIB / (b->o.blob_bytes + 4096);
  if (depth > 64) depth = 64;
  if (depth < 1) depth = 1;
  sem_init(&finished, 0, 0);
  struct load_config c = {.rw = RW_PUT,
                          .depth = (uint32_t)depth,
                          .batch = depth < 32 ? (uint32_t)depth : 32,
                          .request_bytes = b->o.blob_bytes,
                          .count = b->o.blobs,
                          .left = b->o.blobs,
                          .sizes = b->o.sizes.kind ? &b->o.sizes : NULL,
                          .finished = &finished};
  int r = load_init(&l, b, &c);
  if (r < 0) return bench_fail("buffers", r);
  progress_begin(&p, "put blobs");
  load_run_here(&l, b->port, 0, fill_step, &p);
  progress_end(&p);
  b->populated = l.ops;
  b->populate_s = (double)l.elapsed_ns / 1e9;
  r = l.first_error;
  if (r == 0 && l.ops < b->o.blobs) r = -EINTR;
  if (r < 0)
    fprintf(stderr, "shard-bench: %llu of %llu blobs were put%s\n", (unsigned long long)l.ops,
            (unsigned long long)b->o.blobs, r == -EINTR ? "" : ", then:");
  load_finish(&l);
  sem_destroy(&finished);
  if (r < 0) return bench_fail("put", r);
  r = b->o.device == DEVICE_NULL ? 0 : sr_flush(b->port);
  return r < 0 ? bench_fail("flush", r) : 0;
}

int bench_populate(struct bench *b) {
  if (b->o.workload == WORK_LAMBDA) return bench_prepare_lambda(b);
  if (b->o.engine == ENGINE_VOLUME) return bench_volumes_open(b);
  int r = choose_blobs(b);
  if (r < 0 || b->o.rw == RW_PUT || b->o.rw == RW_FLUSH) return r;
  return is_filled(b) ? 0 : fill(b);
}
