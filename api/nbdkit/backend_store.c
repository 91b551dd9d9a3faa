/* backend_store.c - see backend.h: a store in this process. Requests go through lanes; the rare
 * calls that need a port open one for themselves, which costs a lock and a look at 64 slots. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>

#include "api/nbdkit/backend.h"
#include "api/nbdkit/lane.h"

#define LIST_AT_ONCE 64u
#define CLOSE_TRIES  10000 /* a millisecond each */

struct backend {
  struct sr_store *store;
  struct lane *lanes; /* by core */
  uint32_t shards;
  pthread_mutex_t lock; /* disks */
  struct disk *disks;
};

struct disk {
  struct backend *backend;
  struct disk *next;
  struct sr_block *block;
  struct disk_info info;
  char id[24]; /* "#17": holds when it is renamed */
  uint32_t shard, stripe_bytes;
};

/* ---- Ports -------------------------------------------------------------------------------------
 */

static void pause_a_millisecond(void) {
  const struct timespec pause = {.tv_nsec = 1000000};
  nanosleep(&pause, NULL);
}

static int take_port(struct backend *b, struct sr_port **port) {
  int r;
  while ((r = sr_port_open(b->store, NULL, port)) == -EMFILE) pause_a_millisecond();
  return r;
}

/* ---- The store ---------------------------------------------------------------------------------
 */

static int backend_open(struct backend **out, const struct backend_options *options) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct backend *b = calloc(1, sizeof *b);
  if (!b) return -ENOMEM;
  o.cores = options->cores;
  o.queue_depth = options->queue_depth;
  o.read_only = options->read_only;
  o.log = options->log;
  /* A client does not know when we are killed: what was answered must be there. */
  if (access("/dev/shm", W_OK) == 0) o.memory_dir = "/dev/shm";
  int r = sr_store_open(options->store, &o, &b->store);
  if (!r) {
    b->shards = sr_shard_count(b->store);
    b->lanes = lanes_open(b->store);
    if (!b->lanes) r = -ENOMEM;
  }
  if (r) {
    sr_store_close(b->store);
    free(b);
    return r;
  }
  pthread_mutex_init(&b->lock, NULL);
  *out = b;
  return 0;
}

/* Requests in flight are waited for, for a while. */
static int close_block(struct backend *b, struct disk *d) {
  struct sr_port *port;
  int r = take_port(b, &port);
  if (r) return r;
  for (int i = 0; (r = sr_block_close(port, d->block)) == -EBUSY && i < CLOSE_TRIES; i++)
    pause_a_millisecond();
  sr_port_close(port);
  return r;
}

static int backend_close(struct backend *b) {
  if (!b) return 0;
  int r = 0;
  for (struct disk *d = b->disks, *next; d && !r; d = next) {
    next = d->next;
    r = close_block(b, d);
    if (!r) free(d);
  }
  if (!r) r = sr_store_close(b->store);
  if (r == -EBUSY) return r; /* and leave all that may still be used where it is */
  pthread_mutex_destroy(&b->lock);
  lanes_close(b->lanes);
  free(b);
  return r;
}

static int list(struct sr_port *port, struct sr_volume_info *infos, const char *prefix,
                int (*fn)(void *arg, const struct sr_volume_info *info), void *arg) {
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "";
  size_t length = strlen(prefix);
  for (;;) {
    int n = sr_volume_list(port, after, infos, LIST_AT_ONCE);
    if (n <= 0) return n;
    for (int i = 0; i < n; i++) {
      int order = strncmp(infos[i].name, prefix, length);
      int r = order ? 0 : fn(arg, &infos[i]);
      if (r || order > 0) return r;
    }
    memcpy(after, infos[n - 1].name, sizeof after);
  }
}

static int backend_list(struct backend *b, const char *prefix,
                        int (*fn)(void *arg, const struct sr_volume_info *info), void *arg) {
  struct sr_port *port;
  struct sr_volume_info *infos = malloc(LIST_AT_ONCE * sizeof *infos);
  if (!infos) return -ENOMEM;
  int r = take_port(b, &port);
  if (!r) {
    r = list(port, infos, prefix, fn, arg);
    sr_port_close(port);
  }
  free(infos);
  return r;
}

/* ---- Disks -------------------------------------------------------------------------------------
 */

static void describe(const struct sr_volume_info *v, bool read_only, struct disk *d) {
  struct disk_info *info = &d->info;
  memcpy(info->name, v->name, sizeof info->name);
  info->size_bytes = sr_block_size_bytes(d->block);
  info->block_bytes = sr_block_block_bytes(d->block);
  info->read_only = read_only;
  snprintf(info->description, sizeof info->description, "%s #%llu of a Shardring store%s",
           v->snapshot ? "snapshot" : "volume", (unsigned long long)v->id,
           read_only && !v->snapshot ? ", read-only" : "");
  snprintf(d->id, sizeof d->id, "#%llu", (unsigned long long)v->id);
  d->shard = v->shard;
  d->stripe_bytes = v->stripe_bytes;
}

static int open_volume(struct sr_port *port, const char *name, bool read_only, struct disk *d) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_volume_info info;
  o.read_only = read_only;
  o.share = true; /* clients that connect more than once */
  o.direct_reads = true;
  int r = sr_volume_open(port, name, &o, &d->block);
  if (r == -EROFS && !read_only) {
    o.read_only = read_only = true;
    r = sr_volume_open(port, name, &o, &d->block);
  }
  if (r) return r;
  r = sr_volume_stat(port, name, &info);
  if (r)
    sr_block_close(port, d->block);
  else
    describe(&info, read_only, d);
  return r;
}

static int disk_open(struct backend *b, const char *name, bool read_only, struct disk **out) {
  struct sr_port *port;
  struct disk *d = calloc(1, sizeof *d);
  if (!d) return -ENOMEM;
  d->backend = b;
  int r = take_port(b, &port);
  if (!r) {
    r = open_volume(port, name, read_only, d);
    sr_port_close(port);
  }
  if (r) {
    free(d);
    return r;
  }
  pthread_mutex_lock(&b->lock);
  d->next = b->disks;
  b->disks = d;
  pthread_mutex_unlock(&b->lock);
  *out = d;
  return 0;
}

static void disk_close(struct disk *d) {
  struct backend *b = d->backend;
  pthread_mutex_lock(&b->lock);
  struct disk **at = &b->disks;
  while (*at != d) at = &(*at)->next;
  *at = d->next;
  pthread_mutex_unlock(&b->lock);
  close_block(b, d);
  free(d);
}

static const struct disk_info *disk_info(const struct disk *d) { return &d->info; }

/* ---- Requests ----------------------------------------------------------------------------------
 */

/* To the core that has the first byte: from any other one it would go there by one more message. */
static int run(struct disk *d, struct sr_request *r) {
  struct backend *b = d->backend;
  uint32_t shard = d->shard;
  if (d->stripe_bytes) shard = (uint32_t)(r->offset / d->stripe_bytes % b->shards);
  r->block = d->block;
  int64_t result = lane_run(&b->lanes[sr_core_of_shard(b->store, shard)], r);
  return result < 0 ? (int)result : 0;
}

static int disk_read(struct disk *d, void *buf, uint32_t bytes, uint64_t offset) {
  /* nbdkit has a thread for each request, so it may as well read: a core would have to be woken for
   * it, and then the thread. */
  if (sr_block_pread(d->block, buf, bytes, offset) == (int64_t)bytes) return 0;
  struct sr_request r = {.op = SR_OP_READ, .buf = buf, .offset = offset, .bytes = bytes};
  return run(d, &r);
}

static int disk_write(struct disk *d, const void *buf, uint32_t bytes, uint64_t offset,
                      bool durable) {
  struct sr_request r = {.op = SR_OP_WRITE,
                         .flags = durable ? SR_DURABLE : 0,
                         .buf = (void *)(uintptr_t)buf,
                         .offset = offset,
                         .bytes = bytes};
  return run(d, &r);
}

static int disk_zero(struct disk *d, uint32_t bytes, uint64_t offset, bool durable) {
  struct sr_request r = {.op = SR_OP_WRITE_ZEROES,
                         .flags = durable ? SR_DURABLE : 0,
                         .offset = offset,
                         .bytes = bytes};
  return run(d, &r);
}

static int disk_flush(struct disk *d) {
  struct sr_request r = {.op = SR_OP_SYNC};
  return d->info.read_only ? 0 : run(d, &r);
}

static int disk_discard(struct disk *d, uint32_t bytes, uint64_t offset, bool durable) {
  uint64_t mask = d->info.block_bytes - 1;
  uint64_t from = (offset + mask) & ~mask, to = (offset + bytes) & ~mask;
  struct sr_request r = {.op = SR_OP_DISCARD, .offset = from, .bytes = to - from};
  int e = to > from ? run(d, &r) : 0;
  return e || !durable ? e : disk_flush(d);
}

static int disk_ranges(struct disk *d, uint32_t bytes, uint64_t offset,
                       int (*fn)(void *arg, const struct sr_volume_range *range), void *arg) {
  struct sr_port *port;
  int r = take_port(d->backend, &port);
  if (r) return r;
  r = sr_volume_ranges(port, d->id, offset, bytes, fn, arg);
  sr_port_close(port);
  return r;
}

const struct backend_ops backend_store = {
    .open = backend_open,
    .close = backend_close,
    .list = backend_list,
    .disk_open = disk_open,
    .disk_close = disk_close,
    .disk_info = disk_info,
    .disk_read = disk_read,
    .disk_write = disk_write,
    .disk_zero = disk_zero,
    .disk_discard = disk_discard,
    .disk_flush = disk_flush,
    .disk_ranges = disk_ranges,
};
