/* vhost_cycles.c - short-lived disks: clone, attach, connect, read once, disconnect, detach,
 * remove, over and over from some threads, as a host of functions does it. Prints how many a
 * second, and percentiles of one; and what the process has more of afterwards than after the first
 * hundred: descriptors, mappings, memory, bytes of the store. Status 1: descriptors or bytes of the
 * store.
 *
 * vhost_cycles DIRECTORY [CYCLES [THREADS]]      default 5000, 2. Makes and removes a store there.
 *
 * With a fourth argument, N: instead, N disks with a connected, idle monitor each, and what they
 * cost in processor time over ten seconds, and in memory. */
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/shardring_vhost.h"
#include "api/vhost/front.h"
#include "bench/clock.h"

#define WARM_UP 100u

static struct {
  struct sr_store *store;
  struct sr_vhost *vhost;
  char dir[200];
  uint32_t cycles, threads;
  atomic_uint next;
  uint64_t *took_ns;
} bench;

static void die(const char *what, int64_t error) {
  fprintf(stderr, "vhost_cycles: %s: %s\n", what, strerror(error < 0 ? (int)-error : (int)error));
  exit(1);
}
static void must(const char *what, int64_t result) {
  if (result < 0) die(what, result);
}

/* ---- One disk -----------------------------------------------------------------------------------
 */

static void attach(struct sr_port *port, uint32_t n, char name[32], char socket[256]) {
  struct sr_vhost_disk disk = SR_VHOST_DISK_INIT;
  snprintf(name, 32, "vm-%u", n);
  snprintf(socket, 256, "%s/%s", bench.dir, name);
  must("clone", sr_volume_clone(port, "base", name, NULL));
  disk.volume = name;
  disk.socket = socket;
  must("attach", sr_vhost_attach(bench.vhost, NULL, &disk));
}

static struct vfront *connect_and_read(const char *socket, uint32_t n) {
  char why[256] = "";
  struct vfront *front;
  struct vfront_options o = {
      .socket = socket, .queues = 1, .depth = 16, .buffer_bytes = 65536, .connect_ms = 5000};
  int r = vfront_open(&front, &o, why, sizeof why);
  if (r) die(why, r);
  uint64_t block = n % 1024;
  struct vfront_request q = {
      .op = VFRONT_READ, .bytes = 4096, .offset = block * 4096, .buf = front->buffers};
  must("read", vfront_do(&front->queues[0], &q));
  if (q.status || *(uint64_t *)(void *)front->buffers != block + 1) die("read", -EBADMSG);
  return front;
}

static void detach(struct sr_port *port, struct vfront *front, const char *name) {
  vfront_close(front);
  must("detach", sr_vhost_detach(bench.vhost, name, true));
  must("remove", sr_volume_remove(port, name));
}

static void *run_cycles(void *arg) {
  struct sr_port *port;
  char name[32], socket[256];
  (void)arg;
  must("port", sr_port_open(bench.store, NULL, &port));
  for (uint32_t n; (n = atomic_fetch_add(&bench.next, 1)) < bench.cycles;) {
    uint64_t begin = now_ns();
    attach(port, n, name, socket);
    detach(port, connect_and_read(socket, n), name);
    bench.took_ns[n] = now_ns() - begin;
  }
  must("port", sr_port_close(port));
  return NULL;
}

/* ---- What the process has
 * -------------------------------------------------------------------------- */

struct holdings {
  uint64_t descriptors, mappings, resident_bytes, heap_bytes, volume_bytes, free_bytes,
      metadata_bytes;
};

static uint64_t count_entries(const char *path) {
  uint64_t n = 0;
  DIR *d = opendir(path);
  while (d && readdir(d)) n++;
  if (d) closedir(d);
  return n;
}

static uint64_t count_lines(const char *path) {
  uint64_t n = 0;
  FILE *f = fopen(path, "r");
  for (int c; f && (c = fgetc(f)) != EOF;) n += c == '\n';
  if (f) fclose(f);
  return n;
}

static uint64_t resident_bytes(void) {
  unsigned long all = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%lu %lu", &all, &resident) != 2) resident = 0;
  if (f) fclose(f);
  return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The base's checksums are made in the background, and then stand in the checkpoints. */
static void wait_for_checksums(struct sr_port *port) {
  struct sr_volume_info info;
  do {
    usleep(1000);
    must("stat", sr_volume_stat(port, "base", &info));
  } while (info.unsummed_bytes);
}

/* Checkpoints of the index lie in the same space as data, and are written when the log is half
 * full: the one that was taken last may name clones that are gone since. So each look has its own.
 */
static struct holdings hold(struct sr_port *port) {
  struct sr_space space;
  wait_for_checksums(port);
  must("flush", sr_flush(port));
  must("checkpoint", sr_checkpoint(port));
  must("flush", sr_flush(port));
  must("flush", sr_flush(port)); /* what was given back is free after the next one */
  must("space", sr_space(port, &space));
  struct mallinfo2 heap = mallinfo2();
  return (struct holdings){
      .descriptors = count_entries("/proc/self/fd"),
      .mappings = count_lines("/proc/self/maps"),
      .resident_bytes = resident_bytes(),
      .heap_bytes = heap.uordblks + heap.hblkhd,
      .volume_bytes = space.volume_bytes,
      .free_bytes = space.free_bytes,
      .metadata_bytes = space.metadata_bytes,
  };
}

/* ---- Runs
 * ------------------------------------------------------------------------------------------ */

static void run(uint32_t cycles) {
  pthread_t threads[64];
  atomic_store(&bench.next, 0);
  bench.cycles = cycles;
  for (uint32_t i = 0; i < bench.threads; i++) pthread_create(&threads[i], NULL, run_cycles, NULL);
  for (uint32_t i = 0; i < bench.threads; i++) pthread_join(threads[i], NULL);
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static double percentile_ms(double part) {
  return (double)bench.took_ns[(uint32_t)((double)(bench.cycles - 1) * part)] / 1e6;
}

static int report_cycles(struct sr_port *port, uint32_t cycles) {
  run(WARM_UP < cycles ? WARM_UP : cycles);
  struct holdings before = hold(port);
  uint64_t begin = now_ns();
  run(cycles);
  double seconds = (double)(now_ns() - begin) / 1e9;
  struct holdings after = hold(port);
  qsort(bench.took_ns, cycles, sizeof *bench.took_ns, by_size);
  printf(
      "cycles                     %u  (clone, attach, connect, read, detach, remove; %u threads)\n",
      cycles, bench.threads);
  printf("rate                       %.1f  (a second)\n", cycles / seconds);
  printf("p50                        %.3f ms\n", percentile_ms(0.5));
  printf("p99                        %.3f ms\n", percentile_ms(0.99));
  printf("most                       %.3f ms\n", percentile_ms(1));
  printf("descriptors more           %lld\n", (long long)(after.descriptors - before.descriptors));
  printf("mappings more              %lld\n", (long long)(after.mappings - before.mappings));
  printf("resident memory more       %lld KiB\n",
         (long long)(after.resident_bytes - before.resident_bytes) / 1024);
  printf("heap memory more           %lld bytes  (as malloc counts it, its caches included)\n",
         (long long)(after.heap_bytes - before.heap_bytes));
  printf("volume bytes more          %lld\n",
         (long long)(after.volume_bytes - before.volume_bytes));
  printf("free bytes less            %lld\n", (long long)(before.free_bytes - after.free_bytes));
  printf("metadata bytes more        %lld\n",
         (long long)(after.metadata_bytes - before.metadata_bytes));
  return after.descriptors != before.descriptors || after.volume_bytes != before.volume_bytes ||
         after.free_bytes != before.free_bytes;
}

static double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* The monitors live in this process as well, so their memory is in what is printed; each has 16
 * requests and 64 KiB for data. */
static int report_idle(struct sr_port *port, uint32_t disks) {
  struct vfront **fronts = calloc(disks, sizeof *fronts);
  char name[32], socket[256];
  if (!fronts) return 1;
  uint64_t before = resident_bytes();
  for (uint32_t i = 0; i < disks; i++) {
    attach(port, i, name, socket);
    fronts[i] = connect_and_read(socket, i);
  }
  uint64_t after = resident_bytes();
  sleep(1);
  double cpu = cpu_seconds();
  sleep(10);
  printf("idle disks                 %u\n", disks);
  printf("processor                  %.4f %%  (of one core, over ten seconds)\n",
         (cpu_seconds() - cpu) * 10);
  printf("memory of each             %.1f KiB  (resident, the monitor's part included)\n",
         (double)(after - before) / 1024 / disks);
  for (uint32_t i = 0; i < disks; i++) {
    snprintf(name, sizeof name, "vm-%u", i);
    detach(port, fronts[i], name);
  }
  free(fronts);
  return 0;
}

int main(int argc, char **argv) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *block;
  struct sr_port *port;
  char path[256], buf[4096] = "";
  if (argc < 2) return fprintf(stderr, "usage: %s DIRECTORY [CYCLES [THREADS [IDLE]]]\n", *argv), 2;
  uint32_t cycles = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 5000;
  bench.threads = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2;
  if (!cycles || !bench.threads || bench.threads > 60) return 2;
  bench.took_ns = calloc(cycles > WARM_UP ? cycles : WARM_UP, sizeof *bench.took_ns);
  snprintf(bench.dir, sizeof bench.dir, "%s/vhost-cycles", argv[1]);
  if (!bench.took_ns || mkdir(bench.dir, 0700) < 0) die(bench.dir, errno);
  snprintf(path, sizeof path, "%s/store", bench.dir);
  f.size_bytes = UINT64_C(1) << 30;
  f.shards = 2;
  must("format", sr_format(path, &f));
  must("open", sr_store_open(path, NULL, &bench.store));
  must("port", sr_port_open(bench.store, NULL, &port));
  must("start", sr_vhost_start(bench.store, NULL, &bench.vhost));
  v.size_bytes = 64 << 20;
  must("create", sr_volume_create(port, "image", &v));
  must("open", sr_volume_open(port, "image", NULL, &block));
  for (uint64_t i = 0; i < 1024; i++) {
    *(uint64_t *)(void *)buf = i + 1;
    must("write", sr_block_write(port, block, buf, i * 4096, 4096, 0));
  }
  must("close", sr_block_close(port, block));
  must("snapshot", sr_volume_snapshot(port, "image", "base"));
  int status = argc > 4 ? report_idle(port, (uint32_t)strtoul(argv[4], NULL, 10))
                        : report_cycles(port, cycles);
  sr_vhost_stop(bench.vhost);
  must("port", sr_port_close(port));
  must("close", sr_store_close(bench.store));
  char command[512];
  snprintf(command, sizeof command, "rm -rf '%s'", bench.dir);
  return system(command) || status;
}
