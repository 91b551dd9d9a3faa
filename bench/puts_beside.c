/* puts_beside.c - how long puts of 4 KiB take while the store is checkpointed and vacuumed, and
 * while it is not. Turns of both, one after the other, the order changes with each pair:
 *
 *   puts_beside DIRECTORY [PAIRS [MILLISECONDS]]
 *
 * Makes a store of 1 GiB there with 100,000 blobs. One thread keeps 8 puts over random ones of them
 * in flight; in one turn of each pair another thread, with a port of its own, checkpoints and
 * vacuums in turn, without a pause. A line for each pair: microseconds of the 99.9th percentile
 * beside that, and alone; puts of both; checkpoints with their vacuums, and MiB that these have
 * moved. What the main thread reads of the other one it reads when that has ended. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/shardring.h"
#include "bench/clock.h"

#define BLOBS      100000u
#define BYTES      4096u
#define DEPTH      8u
#define PUTS_MAX   (1u << 22) /* of a turn */
#define STORE_SIZE (UINT64_C(1) << 30)

static struct sr_store *store;
static char *buffer;
static uint32_t *times_ns;
static uint64_t seed = 1;

struct keeper {
  atomic_bool stop;
  uint64_t rounds, moved_bytes;
};

static void must(const char *what, int64_t result) {
  if (result >= 0) return;
  fprintf(stderr, "puts_beside: %s: %s\n", what, strerror((int)-result));
  exit(1);
}

static uint64_t draw(void) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (seed >> 33) % BLOBS;
}

static void *keep(void *arg) {
  struct keeper *k = arg;
  struct sr_port *port;
  must("port", sr_port_open(store, NULL, &port));
  while (!atomic_load(&k->stop)) {
    struct sr_vacuum_result moved = {0};
    must("checkpoint", sr_checkpoint(port));
    must("vacuum", sr_vacuum(port, &moved));
    k->rounds++, k->moved_bytes += moved.moved_bytes;
  }
  must("port", sr_port_close(port));
  return NULL;
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Puts for so long, or `count` puts of the blobs in order (0: no such end). How many. */
static uint64_t puts_for(struct sr_port *port, uint64_t ms, uint32_t count) {
  static struct sr_request requests[DEPTH];
  uint64_t begun[DEPTH], end = now_ns() + ms * 1000000, sent = 0, back = 0;
  struct sr_request *idle[DEPTH];
  uint32_t idle_count = DEPTH;
  for (uint32_t i = 0; i < DEPTH; i++) idle[i] = &requests[i];
  for (;;) {
    uint64_t now = now_ns();
    bool more = count ? sent < count : now < end && sent < PUTS_MAX;
    for (; more && idle_count > 0 && (!count || sent < count); sent++) {
      struct sr_request *q = idle[--idle_count];
      uint64_t slot = (uint64_t)(q - requests);
      *q = (struct sr_request){.op = SR_OP_PUT, .id = {7, count ? sent : draw()}, .bytes = BYTES};
      q->buf = buffer + slot * BYTES, begun[slot] = now;
      int n = sr_port_submit(port, &q, 1);
      must("submit", n);
    }
    if (back == sent) return sent;
    sr_port_wait(port, -1);
    int n = sr_port_reap(port, &idle[idle_count], DEPTH - idle_count);
    must("reap", n);
    now = now_ns();
    for (int i = 0; i < n; i++, back++) {
      struct sr_request *q = idle[idle_count++];
      must("put", q->result);
      if (!count) times_ns[back] = (uint32_t)(now - begun[q - requests]);
    }
  }
}

struct turn {
  double us; /* 99.9th percentile */
  uint64_t puts;
};

static struct turn turn(struct sr_port *port, uint64_t ms, struct keeper *k) {
  pthread_t thread;
  if (k) must("thread", -pthread_create(&thread, NULL, keep, k));
  struct turn t = {.puts = puts_for(port, ms, 0)};
  if (k) atomic_store(&k->stop, true);
  if (k) pthread_join(thread, NULL);
  qsort(times_ns, t.puts, sizeof *times_ns, by_value);
  t.us = times_ns[t.puts * 999 / 1000] / 1e3;
  return t;
}

static void open_store(const char *directory) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  f.size_bytes = STORE_SIZE, f.shards = 1, f.prealloc = SR_PREALLOC_FULL;
  o.core_count = 1;
  must(directory, sr_format(directory, &f));
  must(directory, sr_store_open(directory, &o, &store));
}

int main(int argc, char **argv) {
  uint32_t pairs = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 7;
  uint64_t ms = argc > 3 ? strtoull(argv[3], NULL, 10) : 1000;
  struct sr_port *port;
  if (argc < 2 || argc > 4 || pairs == 0 || ms == 0) {
    fprintf(stderr, "usage: puts_beside DIRECTORY [PAIRS [MILLISECONDS]]\n");
    return 2;
  }
  open_store(argv[1]);
  times_ns = malloc(PUTS_MAX * sizeof *times_ns);
  buffer = sr_buffer_alloc(store, (size_t)DEPTH * BYTES, true);
  if (!buffer || !times_ns) must("memory", -12);
  for (uint32_t i = 0; i < DEPTH * BYTES; i++) buffer[i] = (char)(i * 31);
  must("port", sr_port_open(store, NULL, &port));
  puts_for(port, 0, BLOBS);
  for (uint32_t i = 0; i < pairs; i++) {
    struct keeper k = {.rounds = 0};
    struct turn beside, alone;
    if (i % 2) alone = turn(port, ms, NULL);
    beside = turn(port, ms, &k);
    if (i % 2 == 0) alone = turn(port, ms, NULL);
    printf("%.1f\t%.1f\t%llu\t%llu\t%llu\t%.1f\n", beside.us, alone.us,
           (unsigned long long)beside.puts, (unsigned long long)alone.puts,
           (unsigned long long)k.rounds, (double)k.moved_bytes / 1048576);
    fflush(stdout);
  }
  sr_buffer_free(store, buffer);
  must("port", sr_port_close(port));
  must("close", sr_store_close(store));
  return 0;
}
