/* ctl_store.c - commands on the store as a whole. */
#include "tools/ctl.h"
#include "tools/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of 10 ms, without any new checksum: something is in the way, the log says what. */
enum { CHECKSUM_PAUSES_MAX = 1000 };

int ctl_format(const struct ctl_options *o) {
  static const uint32_t kinds[] = {SR_PREALLOC_DEFAULT, SR_PREALLOC_FULL, SR_PREALLOC_SPARSE};
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct progress p;
  f.size_bytes = o->size_bytes;
  f.shards = (uint32_t)o->shards;
  f.prealloc = kinds[o->prealloc];
  f.force = o->force;
  f.log_bytes = o->log_bytes;
  f.progress = progress_callback;
  f.progress_arg = &p;
  progress_begin(&p, "format");
  int r = sr_format(o->store, &f);
  progress_end(&p);
  if (r < 0) return ctl_fail(o->store, r);
  return o->json ? ctl_info(o) : CTL_OK;
}

/* ---- info ---------------------------------------------------------------------------------- */

static int info_json(const struct ctl_options *o, const struct sr_store_stats *s,
                     const struct sr_space *space) {
  struct js *root = js_object();
  js_text(root, "store", o->store);
  js_text(root, "uuid", s->uuid);
  js_count(root, "format_version", s->format_version);
  js_count(root, "shards", s->shards);
  js_count(root, "devices", s->devices);
  js_count(root, "epoch", s->epoch);
  js_count(root, "log_bytes", s->log_bytes);
  js_count(root, "log_bytes_used", s->log_bytes_used);
  js_count(root, "blobs", space->blobs);
  js_count(root, "live_bytes", space->live_bytes);
  js_count(root, "volume_bytes", space->volume_bytes);
  js_count(root, "total_bytes", space->total_bytes);
  js_count(root, "free_bytes", space->free_bytes);
  js_count(root, "pending_bytes", space->pending_bytes);
  js_count(root, "metadata_bytes", space->metadata_bytes);
  js_count(root, "index_ram_bytes", space->index_ram_bytes);
  return ctl_print_json(root);
}

static void info_text(const struct ctl_options *o, const struct sr_store_stats *s,
                      const struct sr_space *space) {
  char a[32], b[32], c[32], d[32];
  printf("store      %s\n", o->store);
  printf("uuid       %s, format version %u\n", s->uuid, s->format_version);
  printf("shards     %u on %u file%s or device%s\n", s->shards, s->devices,
         s->devices == 1 ? "" : "s", s->devices == 1 ? "" : "s");
  printf("blobs      %" PRIu64 ", %s in all\n", space->blobs,
         ctl_human_bytes(space->live_bytes, a));
  printf("volumes    %s in all, maps of %s of memory\n", ctl_human_bytes(space->volume_bytes, a),
         ctl_human_bytes(space->volume_ram_bytes, b));
  printf("space      %s for data, %s free, %s free after the next flush\n",
         ctl_human_bytes(space->total_bytes, a), ctl_human_bytes(space->free_bytes, b),
         ctl_human_bytes(space->pending_bytes, c));
  printf("metadata   %s; log %s of %s in use; index %s of memory\n",
         ctl_human_bytes(space->metadata_bytes, a), ctl_human_bytes(s->log_bytes_used, b),
         ctl_human_bytes(s->log_bytes, c), ctl_human_bytes(space->index_ram_bytes, d));
  printf("epoch      %" PRIu64 "\n", s->epoch);
}

int ctl_info(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_store_stats stats;
  struct sr_space space;
  int status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  int r = sr_store_stats(s.port, &stats);
  if (r == 0) r = sr_space(s.port, &space);
  if (r < 0)
    status = ctl_fail("info", r);
  else if (o->json)
    status = info_json(o, &stats, &space);
  else
    info_text(o, &stats, &space);
  return ctl_close(&s, status);
}

/* ---- stats --------------------------------------------------------------------------------- */

/* Every counter once: its name, and where it lies. */
struct counter {
  const char *name;
  size_t offset;
};
#define STORE_COUNTER(field)                                                                       \
  { #field, offsetof(struct sr_store_stats, field) }
#define CORE_COUNTER(field)                                                                        \
  { #field, offsetof(struct sr_core_stats, field) }
static const struct counter store_counters[] = {
    STORE_COUNTER(epoch),          STORE_COUNTER(flushes),
    STORE_COUNTER(flushes_shared), STORE_COUNTER(durable_commits),
    STORE_COUNTER(checkpoints),    STORE_COUNTER(zeroed_bytes),
    STORE_COUNTER(log_bytes_used), STORE_COUNTER(log_bytes),
    STORE_COUNTER(damaged_blobs),  STORE_COUNTER(damaged_metadata),
    STORE_COUNTER(old_blobs),      STORE_COUNTER(lost_changes),
    STORE_COUNTER(batches),        STORE_COUNTER(batches_failed),
    STORE_COUNTER(batch_retries),  STORE_COUNTER(queue_depth),
    STORE_COUNTER(poll_us),
};
static const struct counter core_counters[] = {
    CORE_COUNTER(gets),       CORE_COUNTER(puts),           CORE_COUNTER(deletes),
    CORE_COUNTER(other_ops),  CORE_COUNTER(read_bytes),     CORE_COUNTER(write_bytes),
    CORE_COUNTER(hops_in),    CORE_COUNTER(batches_in),     CORE_COUNTER(device_submits),
    CORE_COUNTER(device_ios), CORE_COUNTER(device_flushes), CORE_COUNTER(device_fua_writes),
    CORE_COUNTER(steps),      CORE_COUNTER(idle_steps),     CORE_COUNTER(sleeps),
    CORE_COUNTER(wakes_sent), CORE_COUNTER(wakes_received), CORE_COUNTER(io_workers),
    CORE_COUNTER(short_ios),  CORE_COUNTER(retried_ios),    CORE_COUNTER(checksum_errors)};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t counter_of(const void *stats, const struct counter *c) {
  uint64_t v;
  memcpy(&v, (const char *)stats + c->offset, sizeof(v));
  return v;
}

static void put_counters(struct js *to, const void *stats, const struct counter *c, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (to)
      js_count(to, c[i].name, counter_of(stats, &c[i]));
    else
      printf("  %-18s %" PRIu64 "\n", c[i].name, counter_of(stats, &c[i]));
  }
}

static int put_core(struct js *cores, struct sr_port *port, uint32_t index) {
  static struct sr_core_stats c;
  int r = sr_core_stats(port, index, &c);
  if (r < 0) return r;
  struct js *core = cores ? js_add(cores, NULL, js_object()) : NULL;
  if (core) {
    js_count(core, "core", c.core);
    js_count(core, "cpu", c.cpu);
    js_count(core, "numa_node", c.numa_node);
    js_count(core, "shards", c.shards);
    js_text(core, "engine", c.engine);
    js_text(core, "why_cpu", c.why_cpu);
    js_text(core, "ring_flags", c.ring_flags);
    js_bool(core, "buffers_registered", c.buffers_registered);
    js_bool(core, "files_registered", c.files_registered);
  } else {
    printf("core %u: CPU %u (%s), %u shards, engine %s\n  ring flags         %s\n", c.core, c.cpu,
           c.why_cpu, c.shards, c.engine, c.ring_flags);
  }
  put_counters(core, &c, core_counters, COUNT(core_counters));
  return 0;
}

static int print_stats(const struct ctl_options *o, struct ctl_session *s) {
  struct sr_store_stats stats;
  int r = sr_store_stats(s->port, &stats);
  if (r < 0) return ctl_fail("stats", r);
  struct js *root = o->json ? js_object() : NULL, *cores = NULL;
  const char *method = stats.flush_method == SR_FLUSH_AFTER ? "write+flush" : "fua";
  if (root) {
    js_text(root, "store", o->store);
    js_text(root, "uuid", stats.uuid);
    js_text(root, "why_cores", stats.why_cores);
    js_text(root, "why_engine", stats.why_engine);
    js_bool(root, "engine_fallback", stats.engine_fallback);
    js_text(root, "why_settings", stats.why_settings);
    js_text(root, "flush_method", method);
  } else {
    printf("store %s\n  cores              %u (%s)\n  engine             %s\n", o->store,
           stats.cores, stats.why_cores, stats.why_engine);
    printf("  settings           %s\n  flush_method       %s\n", stats.why_settings, method);
  }
  put_counters(root, &stats, store_counters, COUNT(store_counters));
  if (root) cores = js_add(root, "cores", js_array());
  for (uint32_t i = 0; r == 0 && i < stats.cores; i++) r = put_core(cores, s->port, i);
  if (r == 0) return root ? ctl_print_json(root) : CTL_OK;
  if (root) js_free(root);
  return ctl_fail("stats", r);
}

int ctl_stats(const struct ctl_options *o) {
  struct ctl_session s;
  int status = ctl_open(&s, o, true);
  return status != CTL_OK ? status : ctl_close(&s, print_stats(o, &s));
}

/* ---- flush, vacuum, grow ----------------------------------------------------------------------
 */

/* Of the volume that misses most: what several share is counted once. */
static int unsummed_bytes(struct sr_port *port, uint64_t *most) {
  static struct sr_volume_info infos[64];
  char after[sizeof(infos->name)] = "";
  int n;
  *most = 0;
  while ((n = sr_volume_list(port, after, infos, 64)) > 0) {
    for (int i = 0; i < n; i++)
      if (infos[i].unsummed_bytes > *most) *most = infos[i].unsummed_bytes;
    memcpy(after, infos[n - 1].name, sizeof(after));
  }
  return n;
}

/* Checksums are made in the background while the store is open: it only has to stay so. */
static int wait_for_checksums(struct sr_port *port) {
  const struct timespec pause = {.tv_nsec = 10000000};
  struct progress progress;
  uint64_t first, left, before = UINT64_MAX;
  int idle = 0, r = unsummed_bytes(port, &first);
  if (r < 0 || !first) return r;
  progress_begin(&progress, "checksums");
  for (left = first; r == 0 && left && idle < CHECKSUM_PAUSES_MAX;
       r = unsummed_bytes(port, &left)) {
    idle = left < before ? 0 : idle + 1;
    before = left;
    progress_step(&progress, left < first ? first - left : 0, first);
    nanosleep(&pause, NULL);
  }
  progress_end(&progress);
  return r < 0 ? r : left ? -ETIMEDOUT : 0;
}

int ctl_flush(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_store_stats stats = {0};
  int status = ctl_open(&s, o, false);
  if (status != CTL_OK) return status;
  int r = o->checksums ? wait_for_checksums(s.port) : 0;
  if (r < 0) status = ctl_fail("checksums", r);
  r = sr_flush(s.port);
  if (r < 0) status = ctl_fail("flush", r);
  if (r == 0 && o->json && sr_store_stats(s.port, &stats) == 0) {
    struct js *root = js_object();
    js_count(root, "epoch", stats.epoch);
    status = ctl_print_json(root);
  }
  return ctl_close(&s, status);
}

int ctl_vacuum(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_vacuum_result v = {0};
  char a[32], b[32];
  int status = ctl_open(&s, o, false);
  if (status != CTL_OK) return status;
  int r = sr_vacuum(s.port, &v);
  if (r < 0) {
    status = ctl_fail("vacuum", r);
  } else if (o->json) {
    struct js *root = js_object();
    js_count(root, "moved_bytes", v.moved_bytes);
    js_count(root, "released_bytes", v.released_bytes);
    status = ctl_print_json(root);
  } else {
    printf("moved %s, gave %s back\n", ctl_human_bytes(v.moved_bytes, a),
           ctl_human_bytes(v.released_bytes, b));
  }
  return ctl_close(&s, status);
}

int ctl_grow(const struct ctl_options *o) {
  int r = sr_grow(o->store, o->add_bytes, o->add_device);
  if (r < 0) return ctl_fail(o->store, r);
  return o->json ? ctl_info(o) : CTL_OK;
}

/* ---- What killed processes have left in memory ------------------------------------------------
 */

struct leftovers {
  bool remove;
  struct js *json; /* NULL: text */
};

static bool print_leftover(void *arg, const struct sr_leftover *f) {
  static const char *const words[] = {"used", "needed", "gone", "unknown"};
  const struct leftovers *l = arg;
  bool removed = l->remove && f->state == SR_LEFTOVER_GONE;
  const char *state = removed ? "removed" : f->state < 4 ? words[f->state] : "?";
  if (!l->json) {
    printf("%s %" PRIu64 " %s %s\n", state, f->bytes, f->path, *f->store ? f->store : "-");
    return removed;
  }
  struct js *one = js_add(l->json, NULL, js_object());
  js_text(one, "state", state);
  js_count(one, "bytes", f->bytes);
  js_text(one, "file", f->path);
  if (*f->store) js_text(one, "store", f->store);
  return removed;
}

int ctl_leftovers(const struct ctl_options *o) {
  struct js *root = o->json ? js_object() : NULL;
  struct leftovers l = {o->force, root ? js_add(root, "leftovers", js_array()) : NULL};
  if (!root) puts("STATE BYTES FILE STORE");
  int r = sr_leftovers(o->store, print_leftover, &l);
  int status = root ? ctl_print_json(root) : CTL_OK;
  return r < 0 ? ctl_fail(o->store, r) : status;
}
