/* blocking_reads.c - what a blocking ranged read of a blob costs its thread, against a bare pread()
 * of the same bytes of the same file, and against the same read by way of the blob's core.
 *
 *   blocking_reads DIRECTORY [PAIRS [MILLISECONDS [BLOB_KIB]]]
 *
 * Makes a store of 768 MiB in DIRECTORY, fills most of it with blobs (1 MiB each), whose blocks all
 * say which they are, and finds in its packed file where each lies. Then turns of so many
 * milliseconds, bare and not, one after the other: one thread, median of the times of its reads;
 * then eight threads, reads a second of all together. Every read is checked to be the right block.
 * Prints for both the median of the pairs' ratios, and the smallest and the largest. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/shardring.h"
#include "bench/clock.h"

#define BLOCK       4096u
#define STORE_BYTES (UINT64_C(768) << 20)
#define DATA_BYTES  (UINT64_C(512) << 20)
#define TAG         UINT64_C(0x626c6f636b6f6621)
#define THREADS_MAX 8u
#define PAIRS_MAX   101u
#define TIMES_MAX   (1u << 20)

enum how { BARE, OWN_THREAD, BY_CORE, HOWS };

static struct sr_store *store;
static uint64_t *places; /* of blobs, in the file */
static uint64_t blobs, blob_bytes = UINT64_C(1) << 20;
static int fd;
static uint32_t turn_ms = 400;

static void fail(const char *what, int64_t error) {
  fprintf(stderr, "blocking_reads: %s: %s\n", what, strerror((int)-error));
  exit(1);
}

/* ---- The store --------------------------------------------------------------------------------
 */

static void fill(uint64_t *buf, uint64_t blob) {
  for (uint64_t i = 0; i < blob_bytes / 8; i++) buf[i] = (i + blob) * UINT64_C(0x9e3779b97f4a7c15);
  for (uint64_t at = 0; at < blob_bytes; at += BLOCK) {
    buf[at / 8] = TAG;
    buf[at / 8 + 1] = blob;
    buf[at / 8 + 2] = at;
  }
}

static void make_store(const char *where) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_port *port;
  f.size_bytes = STORE_BYTES;
  f.shards = 1;
  f.prealloc = SR_PREALLOC_FULL;
  f.force = true;
  o.no_background = true;
  int r = sr_format(where, &f);
  if (!r) r = sr_store_open(where, &o, &store);
  if (!r) r = sr_port_open(store, NULL, &port);
  if (r) fail(where, r);
  uint64_t *buf = sr_buffer_alloc(store, blob_bytes, false);
  for (uint64_t i = 0; i < blobs; i++) {
    fill(buf, i);
    r = sr_put(port, (struct sr_id){1, i}, buf, blob_bytes, 0);
    if (r) fail("put", r);
  }
  sr_buffer_free(store, buf);
  r = sr_flush(port);
  if (r) fail("flush", r);
  sr_port_close(port);
}

/* Blobs of a fresh store lie in one piece. */
static void find_places(const char *where) {
  char path[4096];
  snprintf(path, sizeof path, "%s/shard-0000", where);
  fd = open(path, O_RDONLY | O_DIRECT | O_NOATIME | O_CLOEXEC);
  if (fd < 0) fail(path, -errno);
  const uint64_t chunk = UINT64_C(1) << 20;
  uint64_t *buf = aligned_alloc(BLOCK, chunk), found = 0;
  ssize_t n;
  for (uint64_t at = 0; (n = pread(fd, buf, chunk, (off_t)at)) > 0; at += (uint64_t)n)
    for (uint64_t in = 0; in < (uint64_t)n; in += BLOCK) {
      const uint64_t *b = buf + in / 8;
      if (b[0] != TAG || b[1] >= blobs || b[2] != 0) continue;
      places[b[1]] = at + in;
      found++;
    }
  if (n < 0) fail(path, -errno);
  if (found != blobs) fail("blobs in the file", -ENOENT);
  free(buf);
}

/* ---- Readers ----------------------------------------------------------------------------------
 */

struct reader {
  pthread_t thread;
  enum how how;
  uint64_t random, end_ns, reads;
  uint32_t *times; /* NULL: not wanted */
};

static uint64_t draw(struct reader *r) {
  r->random ^= r->random << 13, r->random ^= r->random >> 7, r->random ^= r->random << 17;
  return r->random;
}

static int64_t by_core(struct sr_port *port, struct sr_request *r) {
  struct sr_request *list[] = {r};
  int n = sr_port_submit(port, list, 1);
  while (n == 1 && sr_port_wait(port, -1) == 1 && sr_port_reap(port, list, 1) != 1) {
  }
  return n == 1 ? r->result : n;
}

static int64_t read_block(const struct reader *r, struct sr_port *port, uint64_t blob, uint64_t at,
                          void *buf) {
  struct sr_id id = {1, blob};
  struct sr_request request = {.op = SR_OP_GET, .id = id, .buf = buf, .offset = at, .bytes = BLOCK};
  switch (r->how) {
  case OWN_THREAD:
    return sr_get(port, id, buf, at, BLOCK);
  case BY_CORE:
    return by_core(port, &request);
  default:
    return pread(fd, buf, BLOCK, (off_t)(places[blob] + at));
  }
}

static void *read_on(void *arg) {
  struct reader *r = arg;
  uint64_t *buf = aligned_alloc(BLOCK, BLOCK), start = now_ns();
  struct sr_port *port = NULL;
  int e = sr_port_open(store, NULL, &port);
  if (e) fail("port", e);
  while (start < r->end_ns) {
    uint64_t x = draw(r) >> 8, blob = x % blobs, at = x / blobs % (blob_bytes / BLOCK) * BLOCK;
    int64_t n = read_block(r, port, blob, at, buf);
    if (n != BLOCK || buf[0] != TAG || buf[1] != blob || buf[2] != at) fail("wrong bytes", -EIO);
    uint64_t end = now_ns();
    if (r->times && r->reads < TIMES_MAX) r->times[r->reads] = (uint32_t)(end - start);
    r->reads++;
    start = end;
  }
  sr_port_close(port);
  free(buf);
  return NULL;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Of one thread the median time of a read in us; of several thousands of reads a second. */
static double turn(enum how how, uint32_t threads) {
  static struct reader readers[THREADS_MAX];
  static uint32_t times[TIMES_MAX];
  static uint64_t seed = 1;
  uint64_t start = now_ns(), sum = 0;
  for (uint32_t i = 0; i < threads; i++) {
    readers[i] = (struct reader){.how = how,
                                 .random = ++seed * UINT64_C(0x9e3779b97f4a7c15),
                                 .end_ns = start + (uint64_t)turn_ms * 1000000,
                                 .times = threads == 1 ? times : NULL};
    int e = pthread_create(&readers[i].thread, NULL, read_on, &readers[i]);
    if (e) fail("thread", -e);
  }
  for (uint32_t i = 0; i < threads; i++) {
    pthread_join(readers[i].thread, NULL);
    sum += readers[i].reads;
  }
  if (threads > 1) return (double)sum * 1e6 / (double)(now_ns() - start);
  uint64_t n = sum < TIMES_MAX ? sum : TIMES_MAX;
  qsort(times, n, sizeof *times, by_size);
  return n ? times[n / 2] / 1e3 : 0;
}

/* ---- Figures ----------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, uint32_t count) {
  qsort(values, count, sizeof *values, by_value);
  return values[count / 2];
}

static void measure(uint32_t threads, uint32_t pairs) {
  static const char *const names[HOWS] = {"bare pread", "sr_get", "by the core"};
  double values[HOWS][PAIRS_MAX], ratios[HOWS][PAIRS_MAX];
  for (uint32_t i = 0; i < pairs; i++)
    for (uint32_t k = 0; k < HOWS; k++) {
      enum how how = i % 2 ? HOWS - 1 - k : k; /* so that none is always the first */
      values[how][i] = turn(how, threads);
    }
  for (uint32_t h = 0; h < HOWS; h++)
    for (uint32_t i = 0; i < pairs; i++) ratios[h][i] = values[h][i] / values[BARE][i];
  for (uint32_t h = 0; h < HOWS; h++) {
    printf("%u thread%s  %-11s  %8.2f %s", threads, threads > 1 ? "s" : " ", names[h],
           median(values[h], pairs), threads > 1 ? "thousand/s" : "us p50");
    double m = median(ratios[h], pairs); /* sorts */
    if (h != BARE)
      printf("  ratio %.3f (%.3f to %.3f, %u pairs)", m, ratios[h][0], ratios[h][pairs - 1], pairs);
    printf("\n");
  }
}

int main(int argc, char **argv) {
  char where[4000];
  uint32_t pairs = argc > 2 ? (uint32_t)atoi(argv[2]) : 7;
  if (argc > 3) turn_ms = (uint32_t)atoi(argv[3]);
  if (argc > 4) blob_bytes = (uint64_t)atoi(argv[4]) << 10;
  if (argc < 2 || !pairs || pairs > PAIRS_MAX || !turn_ms || blob_bytes < BLOCK ||
      blob_bytes % BLOCK || blob_bytes > DATA_BYTES) {
    fprintf(stderr, "usage: blocking_reads DIRECTORY [PAIRS [MILLISECONDS [BLOB_KIB]]]\n");
    return 2;
  }
  blobs = DATA_BYTES / blob_bytes;
  places = calloc(blobs, sizeof *places);
  snprintf(where, sizeof where, "%s/blocking_reads_store", argv[1]);
  make_store(where);
  find_places(where);
  turn(BARE, 1); /* nobody's cold start */
  measure(1, pairs);
  measure(THREADS_MAX, pairs);
  return sr_store_close(store) ? 1 : 0;
}
