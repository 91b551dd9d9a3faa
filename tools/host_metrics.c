/* host_metrics.c - see host_metrics.h. The lines of one name have to stand together, while disks
 * come one after the other: so each name has a stream of its own, and they are joined at the end.
 * One thread at a time for each port. */
#include "tools/host_metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_ENTRIES = 32 };

/* A label's value: backslash, quote and newline are escaped. */
static void put_label(FILE *out, const char *text) {
  for (; *text; text++) {
    if (*text == '\\' || *text == '"') fputc('\\', out);
    if (*text == '\n')
      fputs("\\n", out);
    else
      fputc(*text, out);
  }
}

static void put_head(FILE *out, const char *name, const char *type, const char *help) {
  fprintf(out, "# HELP shardring_%s %s\n# TYPE shardring_%s %s\n", name, help, name, type);
}

/* ---- Disks ----------------------------------------------------------------------------------- */

enum unit { COUNT, NANOSECONDS, FLAG, HISTOGRAM };

struct disk_family {
  const char *name, *type, *help;
  enum unit unit;
  size_t offset;
};
#define DISK(name, type, help, unit, field)                                                        \
  { "volume_" name, type, help, unit, offsetof(struct sr_vhost_info, field) }
static const struct disk_family disk_families[] = {
    DISK("reads_total", "counter", "Reads that guests made.", COUNT, reads),
    DISK("writes_total", "counter", "Writes that guests made.", COUNT, writes),
    DISK("flushes_total", "counter", "Flushes that guests made.", COUNT, flushes),
    DISK("discards_total", "counter", "Discards that guests made.", COUNT, discards),
    DISK("zeroes_total", "counter", "Ranges that guests had zeroed.", COUNT, zeroes),
    DISK("errors_total", "counter", "Requests that failed.", COUNT, errors),
    DISK("read_bytes_total", "counter", "Bytes read.", COUNT, read_bytes),
    DISK("written_bytes_total", "counter", "Bytes written.", COUNT, write_bytes),
    DISK("queue_depth", "gauge", "Requests in flight now.", COUNT, in_flight),
    DISK("cpu_seconds_total", "counter", "Processor time of cores, shared out by requests.",
         NANOSECONDS, cpu_ns),
    DISK("limit_waits_total", "counter", "Requests that waited at a limit.", COUNT, limit_waits),
    DISK("limit_wait_seconds_total", "counter", "How long they did, all together.", NANOSECONDS,
         limit_wait_ns),
    DISK("kicks_total", "counter", "Notifications from the guest.", COUNT, kicks),
    DISK("calls_total", "counter", "Notifications to the guest.", COUNT, calls),
    DISK("connections_total", "counter", "Monitors that connected.", COUNT, connections),
    DISK("connected", "gauge", "1 while a monitor is connected.", FLAG, connected),
    DISK("active", "gauge", "1 while the guest's driver has its queues set up.", FLAG, active),
    DISK("latency_seconds", "histogram",
         "Reads and writes, from the ring to the ring; one request in 16 is timed.", HISTOGRAM,
         latency_ns),
};
enum { DISK_FAMILIES = sizeof(disk_families) / sizeof(disk_families[0]) };

static void put_name(FILE *out, const char *name, const char *tail, const struct sr_vhost_info *d) {
  fprintf(out, "shardring_%s%s{disk=\"", name, tail);
  put_label(out, d->name);
  fputs("\",volume=\"", out);
  put_label(out, d->volume);
  fputc('"', out);
}

/* Ends of the histogram's buckets, in us. The library's finer ones are summed up; one that crosses
 * an end counts for the next. */
static const uint32_t ends_us[] = {10,   25,    50,    100,   250,    500,    1000,    2500,
                                   5000, 10000, 25000, 50000, 100000, 250000, 1000000, 10000000};

static void put_histogram(FILE *out, const char *name, const struct sr_vhost_info *d) {
  uint64_t count = 0, below_ns = 0;
  double sum_ns = 0;
  uint32_t at = 0;
  for (size_t i = 0; i < sizeof(ends_us) / sizeof(ends_us[0]); i++) {
    for (; at < SR_LATENCY_BUCKETS; at++) {
      uint64_t end_ns = sr_latency_bucket_ns(at);
      if (end_ns > (uint64_t)ends_us[i] * 1000) break;
      count += d->latency_ns[at];
      sum_ns += (double)d->latency_ns[at] * (double)(below_ns + end_ns) / 2;
      below_ns = end_ns;
    }
    put_name(out, name, "_bucket", d);
    fprintf(out, ",le=\"%g\"} %" PRIu64 "\n", ends_us[i] / 1e6, count);
  }
  for (; at < SR_LATENCY_BUCKETS; at++) {
    count += d->latency_ns[at];
    sum_ns += (double)d->latency_ns[at] * (double)below_ns;
    below_ns = sr_latency_bucket_ns(at);
  }
  put_name(out, name, "_bucket", d);
  fprintf(out, ",le=\"+Inf\"} %" PRIu64 "\n", count);
  put_name(out, name, "_sum", d);
  fprintf(out, "} %.9g\n", sum_ns / 1e9);
  put_name(out, name, "_count", d);
  fprintf(out, "} %" PRIu64 "\n", count);
}

static void put_disk(FILE *out, const struct disk_family *f, const struct sr_vhost_info *d) {
  const char *field = (const char *)d + f->offset;
  uint64_t value = 0;
  if (f->unit == HISTOGRAM) {
    put_histogram(out, f->name, d);
    return;
  }
  put_name(out, f->name, "", d);
  if (f->unit == FLAG) {
    fprintf(out, "} %d\n", *(const bool *)field);
    return;
  }
  memcpy(&value, field, sizeof(value));
  if (f->unit == NANOSECONDS)
    fprintf(out, "} %.9g\n", (double)value / 1e9);
  else
    fprintf(out, "} %" PRIu64 "\n", value);
}

struct stream {
  FILE *file;
  char *text;
  size_t bytes;
};

static int put_all_disks(struct host *h, struct stream streams[DISK_FAMILIES]) {
  struct sr_vhost_info *infos = malloc(LIST_ENTRIES * sizeof(*infos));
  char last[256] = "";
  int n = infos ? 1 : -ENOMEM;
  while (n > 0) {
    n = sr_vhost_list(h->vhost, last, infos, LIST_ENTRIES);
    for (int i = 0; i < n; i++)
      for (int f = 0; f < DISK_FAMILIES; f++)
        put_disk(streams[f].file, disk_families + f, infos + i);
    if (n > 0) snprintf(last, sizeof(last), "%s", infos[n - 1].name);
  }
  free(infos);
  return n;
}

static int put_disks(struct host *h, FILE *out) {
  struct stream streams[DISK_FAMILIES] = {{0}};
  int r = 0;
  for (int f = 0; f < DISK_FAMILIES && r == 0; f++) {
    streams[f].file = open_memstream(&streams[f].text, &streams[f].bytes);
    if (!streams[f].file) r = -ENOMEM;
  }
  if (r == 0) r = put_all_disks(h, streams);
  for (int f = 0; f < DISK_FAMILIES; f++) {
    if (streams[f].file && fclose(streams[f].file) != 0) r = -ENOMEM;
    if (r == 0) {
      put_head(out, disk_families[f].name, disk_families[f].type, disk_families[f].help);
      fwrite(streams[f].text, 1, streams[f].bytes, out);
    }
    free(streams[f].text);
  }
  return r;
}

/* ---- Cores ----------------------------------------------------------------------------------- */

struct core_family {
  const char *name, *help;
  size_t offset;
};
#define CORE(name, help, field)                                                                    \
  { "core_" name, help, offsetof(struct sr_core_stats, field) }
static const struct core_family core_families[] = {
    CORE("reads_total", "Reads of volumes and files.", block_reads),
    CORE("writes_total", "Writes of volumes and files.", block_writes),
    CORE("gets_total", "Blobs read.", gets),
    CORE("puts_total", "Blobs written.", puts),
    CORE("deletes_total", "Blobs deleted.", deletes),
    CORE("other_operations_total", "Requests of all other kinds.", other_ops),
    CORE("read_bytes_total", "Bytes read.", read_bytes),
    CORE("written_bytes_total", "Bytes written.", write_bytes),
    CORE("messages_total", "Requests and batches that came from other threads.", hops_in),
    CORE("device_submits_total", "System calls that submitted I/O.", device_submits),
    CORE("device_ios_total", "I/O operations submitted.", device_ios),
    CORE("device_flushes_total", "Flushes among them.", device_flushes),
    CORE("device_fua_writes_total", "Writes with forced unit access among them.",
         device_fua_writes),
    CORE("steps_total", "Turns of the core's loop.", steps),
    CORE("idle_steps_total", "Turns that found nothing to do.", idle_steps),
    CORE("sleeps_total", "Times that it slept.", sleeps),
    CORE("wakes_total", "Times that it was woken.", wakes_received),
    CORE("short_ios_total", "I/O operations that did less than asked for.", short_ios),
    CORE("retried_ios_total", "I/O operations that were tried again.", retried_ios),
    CORE("checksum_errors_total", "Reads whose checksum did not match.", checksum_errors),
};

static int put_cores(struct host *h, struct sr_port *port, FILE *out) {
  uint32_t count = sr_core_count(h->store);
  struct sr_core_stats *cores = calloc(count, sizeof(*cores));
  int r = cores ? 0 : -ENOMEM;
  for (uint32_t i = 0; i < count && r == 0; i++) r = sr_core_stats(port, i, cores + i);
  for (size_t f = 0; r == 0 && f < sizeof(core_families) / sizeof(core_families[0]); f++) {
    put_head(out, core_families[f].name, "counter", core_families[f].help);
    for (uint32_t i = 0; i < count; i++) {
      uint64_t value;
      memcpy(&value, (const char *)(cores + i) + core_families[f].offset, sizeof(value));
      fprintf(out, "shardring_%s{core=\"%u\",cpu=\"%u\"} %" PRIu64 "\n", core_families[f].name,
              cores[i].core, cores[i].cpu, value);
    }
  }
  free(cores);
  return r;
}

/* ---- Store ----------------------------------------------------------------------------------- */

static void put_one(FILE *out, const char *name, const char *type, const char *help,
                    uint64_t value) {
  put_head(out, name, type, help);
  fprintf(out, "shardring_%s %" PRIu64 "\n", name, value);
}

static int put_store(struct host *h, struct sr_port *port, FILE *out) {
  struct sr_store_stats s;
  struct sr_space space;
  int r = sr_space(port, &space);
  if (r == 0) r = sr_store_stats(port, &s);
  if (r < 0) return r;
  put_head(out, "build_info", "gauge", "Always 1; the version is its label.");
  fprintf(out, "shardring_build_info{version=\"%s\"} 1\n", sr_version());
  put_head(out, "uptime_seconds", "gauge", "Since the daemon was started.");
  fprintf(out, "shardring_uptime_seconds %.3f\n", (double)(host_now_ns() - h->started_ns) / 1e9);
  put_one(out, "draining", "gauge", "1 while no disk is attached any more.", h->draining);
  put_one(out, "store_total_bytes", "gauge", "Data area of the store.", space.total_bytes);
  put_one(out, "store_free_bytes", "gauge", "Can be allocated now.", space.free_bytes);
  put_one(out, "store_pending_bytes", "gauge", "Can be allocated after the next flush.",
          space.pending_bytes);
  put_one(out, "store_volume_bytes", "gauge", "Clusters of all volumes.", space.volume_bytes);
  put_one(out, "store_blob_bytes", "gauge", "Sum of the sizes of blobs.", space.live_bytes);
  put_one(out, "store_metadata_bytes", "gauge", "Logs, checkpoints, identities.",
          space.metadata_bytes);
  put_one(out, "store_blobs", "gauge", "Blobs.", space.blobs);
  put_one(out, "store_index_ram_bytes", "gauge", "Memory of indexes.", space.index_ram_bytes);
  put_one(out, "store_volume_ram_bytes", "gauge", "Memory of maps of volumes.",
          space.volume_ram_bytes);
  put_one(out, "store_flushes_total", "counter", "Flushes of the whole store.", s.flushes);
  put_one(out, "store_checkpoints_total", "counter", "Checkpoints written.", s.checkpoints);
  put_one(out, "store_damaged_blobs_total", "counter", "Damaged blobs found.", s.damaged_blobs);
  put_one(out, "store_damaged_metadata_total", "counter", "Damaged metadata found.",
          s.damaged_metadata);
  return 0;
}

int host_metrics_text(struct host *h, struct sr_port *port, char **text, size_t *bytes) {
  FILE *out = open_memstream(text, bytes);
  if (!out) return -ENOMEM;
  int r = put_store(h, port, out);
  if (r == 0) r = put_cores(h, port, out);
  if (r == 0) r = put_disks(h, out);
  if (fclose(out) != 0 && r == 0) r = -ENOMEM;
  if (r < 0) free(*text);
  return r;
}
