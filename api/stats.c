/* stats.c - statistics: gathered on the cores that own them, by calls through the port. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/internal.h"
#include "runtime/port_direct.h"
#include "runtime/survivors.h"
#include "shards/volume.h"

_Static_assert(SR_LATENCY_BUCKETS == LATENCY_BUCKETS, "one scale");

uint64_t sr_latency_bucket_ns(uint32_t bucket) {
  return bucket < SR_LATENCY_BUCKETS ? latency_bucket_end_ns(bucket) : UINT64_MAX;
}

static int refused(const struct sr_port *p, const void *out) {
  return out ? port_refused(p) : -EINVAL;
}

static struct shard *hosted_shard(struct core *core, uint32_t i) {
  return core->shards[core->mine[i]].shard;
}

/* ---- Count and space ------------------------------------------------------------------------ */

static int add_space(struct core *core, void *arg) {
  struct sr_space *space = arg;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    struct shard_stats st;
    shard_stats(hosted_shard(core, i), &st);
    space->total_bytes += st.total_blocks << BLOCK_SHIFT;
    space->free_bytes += st.free_blocks << BLOCK_SHIFT;
    space->pending_bytes += st.pending_blocks << BLOCK_SHIFT;
    space->live_bytes += st.live_bytes;
    space->metadata_bytes += (st.manifest.log_blocks + st.manifest.checkpoint_blocks)
                             << BLOCK_SHIFT;
    space->blobs += st.blobs;
    space->index_ram_bytes += st.index_ram_bytes;
    space->volume_bytes += st.cluster_bytes;
    space->volume_ram_bytes += st.map_ram_bytes;
  }
  return 0;
}

int sr_space(struct sr_port *p, struct sr_space *space) {
  int r = refused(p, space);
  if (r) return r;
  struct store *s = port_of(p)->store;
  *space = (struct sr_space){.metadata_bytes = s->layout->root_slot_blocks * FORMAT_ROOT_SLOTS
                                               << BLOCK_SHIFT};
  space->metadata_bytes += (uint64_t)s->layout->backing_count * 2 * FORMAT_IDENTITY_BLOCKS
                           << BLOCK_SHIFT;
  for (uint32_t c = 0; !r && c < s->core_count; c++)
    r = store_call(port_of(p), c, add_space, space);
  return r;
}

int64_t sr_count(struct sr_port *p) {
  struct sr_space space;
  int r = sr_space(p, &space);
  return r ? r : (int64_t)space.blobs;
}

/* ---- Cores --------------------------------------------------------------------------------------
 */

/* io-wq threads carry "iou-wrk-" in their name; in steady state there are none. */
static uint64_t count_io_workers(void) {
  DIR *tasks = opendir("/proc/self/task");
  uint64_t n = 0;
  for (struct dirent *e; tasks && (e = readdir(tasks));) {
    char path[300], name[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ssize_t got = read(fd, name, sizeof name - 1);
    close(fd);
    n += got > 0 && strncmp(name, "iou-wrk-", 8) == 0;
  }
  if (tasks) closedir(tasks);
  return n;
}

static int read_core(struct core *core, void *arg) {
  struct sr_core_stats *st = arg;
  struct device_stats d = {0};
  core->device->ops->stats(core->device, &d);
  *st = (struct sr_core_stats){.core = core->index,
                               .cpu = core->cpu,
                               .numa_node = (uint32_t)core->numa_node,
                               .shards = core->mine_count,
                               .buffers_registered = d.buffers_registered,
                               .files_registered = d.files_registered,
                               .gets = core->stats.gets,
                               .puts = core->stats.puts,
                               .deletes = core->stats.deletes,
                               .block_reads = core->stats.block_reads,
                               .block_writes = core->stats.block_writes,
                               .other_ops = core->stats.others,
                               .read_bytes = core->stats.read_bytes,
                               .write_bytes = core->stats.write_bytes,
                               .hops_in = core->stats.hops_in,
                               .batches_in = core->stats.batches_in,
                               .device_submits = d.submits,
                               .device_ios = d.ios,
                               .device_flushes = d.flushes,
                               .device_fua_writes = d.fua_writes,
                               .steps = core->stats.steps,
                               .idle_steps = core->stats.idle_steps,
                               .sleeps = core->stats.sleeps,
                               .wakes_sent = core->stats.wakes_sent,
                               .wakes_received = core->stats.wakes_received,
                               .short_ios = d.short_ios,
                               .retried_ios = d.retried_ios};
  snprintf(st->engine, sizeof st->engine, "%s", core->device->ops->name);
  memcpy(st->why_cpu, core->why_cpu, sizeof st->why_cpu);
  memcpy(st->ring_flags, d.flags, sizeof st->ring_flags);
  memcpy(st->latency_ns, core->stats.latency_ns, sizeof st->latency_ns);
  for (uint32_t i = 0; i < core->mine_count; i++) {
    struct shard_stats s;
    shard_stats(hosted_shard(core, i), &s);
    st->checksum_errors += s.checksum_errors;
    uint64_t reads, bytes;
    shard_direct_stats(hosted_shard(core, i), &reads, &bytes);
    st->direct_reads += reads;
    st->block_reads += reads;
    st->read_bytes += bytes;
  }
  return 0;
}

int sr_core_stats(struct sr_port *p, uint32_t core, struct sr_core_stats *stats) {
  int r = refused(p, stats);
  if (r) return r;
  if (core >= port_of(p)->store->core_count) return -EINVAL;
  r = store_call(port_of(p), core, read_core, stats);
  struct port_direct_stats direct;
  store_direct_stats(port_of(p)->store, core, &direct);
  stats->gets += direct.gets;
  stats->other_ops += direct.stats;
  stats->read_bytes += direct.read_bytes;
  stats->direct_gets = direct.gets;
  stats->io_workers = count_io_workers();
  return r;
}

/* ---- Store ----------------------------------------------------------------------------------- */

static int add_store(struct core *core, void *arg) {
  struct sr_store_stats *st = arg;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    struct shard_stats s;
    shard_stats(hosted_shard(core, i), &s);
    st->durable_commits += s.manifest.commits;
    st->checkpoints += s.manifest.checkpoints;
    st->zeroed_bytes += s.zeroed_blocks << BLOCK_SHIFT;
    st->log_bytes_used += s.manifest.log_blocks_used << BLOCK_SHIFT;
    st->log_bytes += s.manifest.log_blocks << BLOCK_SHIFT;
  }
  if (core->index != 0) return 0;
  const struct flusher *f = &core->store->flusher;
  st->epoch = f->root->epoch;
  st->flushes = f->flushes;
  st->flushes_shared = f->shared;
  st->batches = core->store->batcher.batches;
  st->batches_failed = core->store->batcher.failed;
  st->batch_retries = core->store->batcher.retries;
  return 0;
}

static void format_uuid(const uint8_t uuid[16], char text[37]) {
  char *t = text;
  for (uint32_t i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *t++ = '-';
    t += snprintf(t, 3, "%02x", uuid[i]);
  }
}

static void fill_damage(struct store *s, struct sr_store_stats *st) {
  uint64_t n[DAMAGE_KINDS];
  for (uint32_t k = 0; k < DAMAGE_KINDS; k++)
    n[k] = atomic_load_explicit(&s->damage.counts[k], memory_order_relaxed);
  st->damaged_blobs = n[DAMAGE_BLOB];
  st->old_blobs = n[DAMAGE_OLD];
  for (uint32_t k = DAMAGE_PART; k <= DAMAGE_CHECKPOINT; k++) st->damaged_metadata += n[k];
  st->lost_changes = atomic_load_explicit(&s->damage.lost_changes, memory_order_relaxed);
}

int sr_store_stats(struct sr_port *p, struct sr_store_stats *stats) {
  int r = refused(p, stats);
  if (r) return r;
  struct store *s = port_of(p)->store;
  *stats = (struct sr_store_stats){.format_version = FORMAT_VERSION,
                                   .shards = s->shard_count,
                                   .cores = s->core_count,
                                   .devices = s->layout->backing_count,
                                   .read_only = s->config.read_only,
                                   .engine_fallback = s->engine_fallback,
                                   .queue_depth = s->config.queue_depth,
                                   .poll_us = s->config.poll_us,
                                   .flush_method =
                                       s->config.flush_after ? SR_FLUSH_AFTER : SR_FLUSH_FUA};
  format_uuid(s->layout->uuid, stats->uuid);
  fill_damage(s, stats);
  snprintf(stats->why_cores, sizeof stats->why_cores, "%s", s->plan->why);
  snprintf(stats->why_engine, sizeof stats->why_engine, "%s", s->why_engine);
  snprintf(stats->why_settings, sizeof stats->why_settings, "%s", s->config.why_settings);
  for (uint32_t c = 0; !r && c < s->core_count; c++)
    r = store_call(port_of(p), c, add_store, stats);
  return r;
}

/* ---- What was left in memory -----------------------------------------------------------------
 */

struct leftovers {
  bool (*fn)(void *arg, const struct sr_leftover *leftover);
  void *arg;
};

static bool leftover(void *arg, const struct survivors_left *f) {
  const struct leftovers *l = arg;
  const struct sr_leftover out = {
      .state = (uint32_t)f->state, .bytes = f->bytes, .path = f->path, .store = f->where};
  return l->fn(l->arg, &out);
}
_Static_assert((int)SR_LEFTOVER_GONE == (int)SURVIVORS_GONE &&
                   (int)SR_LEFTOVER_UNKNOWN == (int)SURVIVORS_UNKNOWN,
               "one order");

int sr_leftovers(const char *memory_dir, bool (*fn)(void *arg, const struct sr_leftover *leftover),
                 void *arg) {
  struct leftovers l = {fn, arg};
  return memory_dir && fn ? survivors_each(memory_dir, leftover, &l) : -EINVAL;
}
