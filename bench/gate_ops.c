/* gate_ops.c - work of the engine without a device, for bench/gate: a store in memory with the null
 * engine, one shard, one core, batches of 32 on the core itself.
 *
 *   gate_ops get|put COUNT     does so many, nothing else: to be run where instructions are counted
 *   gate_ops loop              gets for each 1000 steps of a loop that does nothing but multiply,
 *                              median of slices in turns: a ratio that hardly depends on how fast
 * the machine is today
 *
 * The requests belong to the core's thread between sr_store_run() and the semaphore. */
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/shardring.h"

#define BATCH      32
#define BLOBS      10000u
#define BLOB_BYTES 4096u
#define SLICES     21
#define SLICE_OPS  300000u
#define LOOP_STEPS 20000000u

struct work {
  struct sr_store *store;
  struct sr_port *port; /* the core's */
  struct sr_request requests[BATCH];
  char *buffer;
  uint32_t op, flags, back;
  uint64_t next, left;
  sem_t finished;
};

static void fail(const char *what, int64_t r) {
  fprintf(stderr, "gate_ops: %s: %s\n", what, strerror((int)-r));
  exit(1);
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void one_done(struct sr_request *q);

static void submit(struct work *w) {
  struct sr_request *list[BATCH];
  for (uint32_t i = 0; i < BATCH; i++) {
    struct sr_request *q = &w->requests[i];
    uint64_t number = w->next++ * 7919 % BLOBS;
    q->op = w->op, q->flags = w->flags, q->id = (struct sr_id){number * 2654435761u, number};
    q->buf = w->buffer + i * BLOB_BYTES, q->offset = 0, q->bytes = BLOB_BYTES;
    q->done = one_done, q->user = w;
    list[i] = q;
  }
  w->back = 0;
  w->left -= BATCH;
  int n = sr_port_submit(w->port, list, BATCH);
  if (n != BATCH) fail("submit", n < 0 ? n : -11);
}

static void one_done(struct sr_request *q) {
  struct work *w = q->user;
  if (q->result < 0) fail("request", q->result);
  if (++w->back < BATCH) return;
  if (w->left >= BATCH)
    submit(w);
  else
    sem_post(&w->finished);
}

static void begin(struct sr_port *port, void *arg) {
  struct work *w = arg;
  w->port = port;
  submit(w);
}

static void run(struct work *w, uint32_t op, uint32_t flags, uint64_t count) {
  w->op = op, w->flags = flags, w->left = count;
  int r = sr_store_run(w->store, 0, begin, w);
  if (r) fail("run", r);
  while (sem_wait(&w->finished)) continue;
}

static void prepare(struct work *w) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  o.engine = "null", o.core_count = 1, o.no_background = true, o.memory_dir = "", o.seed = 1;
  int r = sr_store_open("mem:256M:1", &o, &w->store);
  if (r) fail("open", r);
  w->buffer = sr_buffer_alloc(w->store, BATCH * BLOB_BYTES, true);
  if (!w->buffer) fail("buffers", -12);
  sem_init(&w->finished, 0, 0);
  run(w, SR_OP_PUT, SR_RESERVE, BLOBS / BATCH * BATCH + BATCH);
}

/* Each step needs the one before it, so it takes as many cycles as a multiplication does. */
static double loop_seconds(void) {
  static volatile uint64_t sink;
  double start = now_s();
  uint64_t x = sink + 1;
  for (uint32_t i = 0; i < LOOP_STEPS; i++) x = x * UINT64_C(6364136223846793005) + 1;
  sink = x;
  return now_s() - start;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_ratio(struct work *w) {
  double ratios[SLICES];
  for (int i = 0; i < SLICES; i++) {
    double before = loop_seconds(), start = now_s();
    run(w, SR_OP_GET, SR_NO_CHECKSUM, SLICE_OPS);
    double gets = SLICE_OPS / (now_s() - start), loop = (before + loop_seconds()) / 2;
    ratios[i] = gets / (LOOP_STEPS / loop) * 1000;
  }
  qsort(ratios, SLICES, sizeof *ratios, by_value);
  printf("%.4f\n", ratios[SLICES / 2]);
}

int main(int argc, char **argv) {
  static struct work w;
  uint64_t count = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
  bool loop = argc == 2 && strcmp(argv[1], "loop") == 0;
  bool put = argc == 3 && strcmp(argv[1], "put") == 0;
  if (!loop && (count < BATCH || (!put && strcmp(argv[1], "get") != 0))) {
    fprintf(stderr, "usage: gate_ops get|put COUNT | gate_ops loop\n");
    return 2;
  }
  prepare(&w);
  if (loop)
    print_ratio(&w);
  else
    run(&w, put ? SR_OP_PUT : SR_OP_GET, put ? 0 : SR_NO_CHECKSUM, count);
  sr_buffer_free(w.store, w.buffer);
  sr_store_abandon(w.store);
  return 0;
}
