/* flush_count.c - what a store-wide flush costs the device: for 1, 2, 8 and 64 shards, every
 * shard dirty, how many flushes and FUA writes the engine asks for, and how many flushes the
 * block device under the store then counts (/sys/dev/block/MAJ:MIN/stat, field 16).
 *
 *   flush_count DIRECTORY             packed files in a fresh store below it
 *   flush_count --device FILE         slices of one block device (its contents are lost)
 *   flush_count --null                the null engine: what is asked for, nothing else
 *
 * Other users of the device disturb its counter: the idle line measures them. A FUA write on a
 * device without FUA (queue/fua = 0) is a write and a flush to the block layer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "api/shardring.h"

#define ROUNDS 40
#define MIB    (UINT64_C(1) << 20)

struct counts {
  uint64_t engine_flushes, engine_fua, device_flushes;
};

static void fail(const char *what, int r) {
  fprintf(stderr, "flush_count: %s: %s\n", what, strerror(-r));
  exit(1);
}

/* A partition counts as its disk does: flushes are the disk's. */
static uint64_t device_flushes(dev_t device) {
  char path[128];
  unsigned long long v[17] = {0};
  int n = 0;
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../stat", major(device), minor(device));
  FILE *f = NULL;
  char part[128];
  snprintf(part, sizeof part, "/sys/dev/block/%u:%u/partition", major(device), minor(device));
  if (access(part, F_OK) == 0) f = fopen(path, "r");
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(device), minor(device));
  if (!f) f = fopen(path, "r");
  while (f && n < 17 && fscanf(f, "%llu", &v[n]) == 1) n++;
  if (f) fclose(f);
  return v[15];
}

static struct counts read_counts(struct sr_port *p, uint32_t cores, dev_t device) {
  struct counts c = {.device_flushes = device_flushes(device)};
  for (uint32_t i = 0; i < cores; i++) {
    struct sr_core_stats st;
    if (sr_core_stats(p, i, &st)) fail("statistics", -EIO);
    c.engine_flushes += st.device_flushes;
    c.engine_fua += st.device_fua_writes;
  }
  return c;
}

static void dirty_all(struct sr_store *s, struct sr_port *p, uint32_t shards, uint64_t *next) {
  uint8_t seen[1024] = {0};
  for (uint32_t left = shards; left > 0; ++*next) {
    struct sr_id id = {1, *next};
    uint32_t shard = sr_shard_of(s, id);
    if (seen[shard]) continue;
    int r = sr_put(p, id, "dirty", 5, 0);
    if (r) fail("put", r);
    seen[shard] = 1;
    left--;
  }
}

static void measure(const char *where, uint32_t shards, const char *engine, dev_t device) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p = NULL;
  o.engine = engine;
  o.no_background = true;
  int r = sr_store_open(where, &o, &s);
  if (!r) r = sr_port_open(s, NULL, &p);
  if (r) fail(where, r);
  uint64_t next = 0, idle;
  struct counts before, after;
  idle = device_flushes(device);
  usleep(300000);
  idle = device_flushes(device) - idle;
  before = read_counts(p, sr_core_count(s), device);
  for (int i = 0; i < ROUNDS; i++) {
    dirty_all(s, p, shards, &next);
    if ((r = sr_flush(p))) fail("flush", r);
  }
  after = read_counts(p, sr_core_count(s), device);
  printf("%6u %6u %16.2f %16.2f %18.2f %12llu\n", shards, sr_core_count(s),
         (double)(after.engine_flushes - before.engine_flushes) / ROUNDS,
         (double)(after.engine_fua - before.engine_fua) / ROUNDS,
         (double)(after.device_flushes - before.device_flushes) / ROUNDS, (unsigned long long)idle);
  sr_port_close(p);
  sr_store_close(s);
}

int main(int argc, char **argv) {
  static const uint32_t counts[] = {1, 2, 8, 64};
  bool device = argc == 3 && strcmp(argv[1], "--device") == 0;
  bool null = argc == 2 && strcmp(argv[1], "--null") == 0;
  struct stat st = {0};
  if (!device && !null && (argc != 2 || argv[1][0] == '-')) {
    fprintf(stderr, "usage: flush_count DIRECTORY | --device DEVICE | --null\n");
    return 2;
  }
  const char *place = null ? "" : argv[argc - 1];
  if (!null && stat(place, &st)) fail(place, -errno);
  dev_t counted = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
  printf("shards  cores  engine flushes    engine FUA   device flushes   idle 0.3 s\n");
  for (uint32_t i = 0; i < 4; i++) {
    char where[4096], command[4200];
    struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
    f.shards = counts[i];
    f.force = true;
    if (null)
      snprintf(where, sizeof where, "mem:2G:%u", counts[i]);
    else
      snprintf(where, sizeof where, device ? "%s" : "%s/flush-count", place);
    if (!device) f.size_bytes = counts[i] * 16 * MIB;
    int r = null ? 0 : sr_format(where, &f);
    if (r) fail(where, r);
    measure(where, counts[i], null ? "null" : NULL, counted);
    snprintf(command, sizeof command, "rm -rf '%s'", where);
    if (!device && !null && system(command)) return 1;
  }
  return 0;
}
