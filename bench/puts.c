/* puts.c - one turn of writers that want each of their writes to be durable: through the store, or
 * as bare as it gets. bench/puts alternates turns; see there.
 *
 *   puts --dir=DIRECTORY --way=flush|durable|raw ...
 *     flush     each writer, a thread with a port: put, then flush
 *     durable   one thread keeps --depth puts with SR_DURABLE in flight
 *     raw       each writer: pwrite with O_DIRECT over blocks of a file that were written before,
 *               then fdatasync
 *
 * Prints writes a second and microseconds of processor time for each (whole process). Stores and
 * files are made where they are missing, and stay. A writer owns its counters and its part of the
 * file; the main thread reads them when it has joined it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/shardring.h"
#include "bench/clock.h"
#include "tools/args.h"

#define WRITERS_MAX 256
#define DEPTH_MAX   1024
#define SPAN_BYTES  (UINT64_C(1) << 30) /* of all that is written again and again */

enum way { WAY_FLUSH, WAY_DURABLE, WAY_RAW };

struct config {
  const char *directory;
  int way;
  uint64_t writers, depth, bytes, cores;
  double seconds;
};

struct writer {
  const struct config *config;
  struct sr_store *store;
  int fd;
  uint64_t number, places; /* blobs or blocks of its own */
  uint64_t deadline_ns, ops;
  int error;
  pthread_t thread;
};

static int complain(const char *what, int error) {
  fprintf(stderr, "puts: %s: %s\n", what, strerror(-error));
  return error;
}

static void fill(void *buffer, uint64_t bytes, uint64_t seed) {
  uint64_t *words = buffer;
  for (uint64_t i = 0; i < bytes / 8; i++) words[i] = (seed + i) * UINT64_C(0x9e3779b97f4a7c15);
}

static int write_raw(struct writer *w, char *buffer) {
  const struct config *c = w->config;
  for (uint64_t i = 0; now_ns() < w->deadline_ns; i++) {
    uint64_t place = w->number * w->places + i % w->places;
    ssize_t n = pwrite(w->fd, buffer, c->bytes, (off_t)(place * c->bytes));
    if (n != (ssize_t)c->bytes) return complain("pwrite", n < 0 ? -errno : -EIO);
    if (fdatasync(w->fd)) return complain("fdatasync", -errno);
    w->ops++;
  }
  return 0;
}

static int put_and_flush(struct writer *w, struct sr_port *port, char *buffer) {
  int r = 0;
  for (uint64_t i = 0; r == 0 && now_ns() < w->deadline_ns; i++) {
    struct sr_id id = {w->number + 1, i % w->places};
    r = sr_put(port, id, buffer, w->config->bytes, 0);
    if (r == 0) r = sr_flush(port);
    w->ops++;
  }
  return r ? complain("put", r) : 0;
}

static int put_durable(struct writer *w, struct sr_port *port, char *buffer) {
  const struct config *c = w->config;
  static struct sr_request requests[DEPTH_MAX];
  struct sr_request *ready[DEPTH_MAX], *out[DEPTH_MAX];
  uint32_t free_count = (uint32_t)c->depth, flying = 0;
  uint64_t next = 0;
  for (uint32_t i = 0; i < c->depth; i++) ready[i] = &requests[i];
  while (now_ns() < w->deadline_ns || flying > 0) {
    bool more = now_ns() < w->deadline_ns;
    for (uint32_t i = 0; more && i < free_count; i++)
      *ready[i] = (struct sr_request){.op = SR_OP_PUT,
                                      .flags = SR_DURABLE,
                                      .id = {1, next++ % w->places},
                                      .buf = buffer + (ready[i] - requests) * (long)c->bytes,
                                      .bytes = c->bytes};
    if (more && free_count > 0) {
      int n = sr_port_submit(port, ready, free_count);
      if (n != (int)free_count) return complain("submit", n < 0 ? n : -EAGAIN);
      flying += free_count;
      free_count = 0;
    }
    sr_port_wait(port, -1);
    int n = sr_port_reap(port, out, (uint32_t)c->depth);
    if (n < 0) return complain("reap", n);
    for (int i = 0; i < n; i++) {
      if (out[i]->result < 0) return complain("put", (int)out[i]->result);
      ready[free_count++] = out[i];
    }
    flying -= (uint32_t)n, w->ops += (uint64_t)n;
  }
  return 0;
}

static void *writer_main(void *arg) {
  struct writer *w = arg;
  const struct config *c = w->config;
  uint64_t bytes = c->bytes * (c->way == WAY_DURABLE ? c->depth : 1);
  struct sr_port *port = NULL;
  char *buffer =
      c->way == WAY_RAW ? aligned_alloc(4096, bytes) : sr_buffer_alloc(w->store, bytes, false);
  w->error = buffer ? 0 : complain("memory", -ENOMEM);
  if (w->error) return NULL;
  fill(buffer, bytes, w->number);
  if (c->way != WAY_RAW) w->error = sr_port_open(w->store, NULL, &port);
  if (w->error == 0)
    w->error = c->way == WAY_RAW     ? write_raw(w, buffer)
               : c->way == WAY_FLUSH ? put_and_flush(w, port, buffer)
                                     : put_durable(w, port, buffer);
  sr_port_close(port);
  if (c->way == WAY_RAW)
    free(buffer);
  else
    sr_buffer_free(w->store, buffer);
  return NULL;
}

/* A file of SPAN_BYTES that were really written. */
static int open_file(const struct config *c) {
  char path[4096];
  struct stat st;
  snprintf(path, sizeof path, "%s/raw", c->directory);
  int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0666);
  if (fd < 0 || fstat(fd, &st)) return complain(path, -errno);
  if ((uint64_t)st.st_size >= SPAN_BYTES) return fd;
  uint64_t piece = 1 << 20;
  char *buffer = aligned_alloc(4096, piece);
  for (uint64_t at = 0; buffer && at < SPAN_BYTES; at += piece) {
    fill(buffer, piece, at);
    if (pwrite(fd, buffer, piece, (off_t)at) != (ssize_t)piece) return complain(path, -EIO);
  }
  free(buffer);
  return fsync(fd) ? complain(path, -errno) : fd;
}

static int open_store(const struct config *c, struct sr_store **store) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  char path[4096];
  snprintf(path, sizeof path, "%s/store", c->directory);
  f.size_bytes = 3 * SPAN_BYTES;
  f.shards = (uint32_t)c->cores;
  f.prealloc = SR_PREALLOC_FULL;
  o.core_count = (uint32_t)c->cores;
  int r = access(path, F_OK) == 0 ? 0 : sr_format(path, &f);
  if (r == 0) r = sr_store_open(path, &o, store);
  return r ? complain(path, r) : 0;
}

static int run(const struct config *c, double *rate, double *cpu_us) {
  static struct writer writers[WRITERS_MAX];
  struct sr_store *store = NULL;
  uint64_t ops = 0;
  int fd = -1, r = 0;
  if (c->way == WAY_RAW)
    r = fd = open_file(c);
  else
    r = open_store(c, &store);
  if (r < 0) return r;
  r = 0;
  uint64_t begin = now_ns();
  double cpu = cpu_s();
  for (uint64_t i = 0; i < c->writers; i++) {
    writers[i] = (struct writer){.config = c, .store = store, .fd = fd, .number = i};
    writers[i].places = SPAN_BYTES / c->bytes / c->writers;
    writers[i].deadline_ns = begin + (uint64_t)(c->seconds * 1e9);
    if (pthread_create(&writers[i].thread, NULL, writer_main, &writers[i])) abort();
  }
  for (uint64_t i = 0; i < c->writers; i++) {
    pthread_join(writers[i].thread, NULL);
    ops += writers[i].ops;
    if (writers[i].error) r = writers[i].error;
  }
  *rate = (double)ops / ((double)(now_ns() - begin) * 1e-9);
  *cpu_us = (cpu_s() - cpu) / (double)ops * 1e6;
  if (fd >= 0) close(fd);
  int closed = sr_store_close(store);
  return r ? r : closed;
}

int main(int argc, char **argv) {
  struct config c = {.writers = 1, .depth = 1, .bytes = 4096, .cores = 1, .seconds = 1};
  const char *words[1];
  double rate, cpu_us;
  const struct arg table[] = {
      {.name = "dir", .kind = ARG_TEXT, .value = &c.directory},
      {.name = "way", .kind = ARG_CHOICE, .value = &c.way, .choices = "flush|durable|raw"},
      {.name = "writers", .kind = ARG_NUMBER, .value = &c.writers, .min = 1, .max = 60},
      {.name = "depth", .kind = ARG_NUMBER, .value = &c.depth, .min = 1, .max = DEPTH_MAX},
      {.name = "bs",
       .kind = ARG_SIZE,
       .value = &c.bytes,
       .min = 4096,
       .max = 8 << 20,
       .unit = 4096},
      {.name = "cores", .kind = ARG_NUMBER, .value = &c.cores, .min = 1, .max = 64},
      {.name = "runtime", .kind = ARG_SECONDS, .value = &c.seconds, .max = 3600},
      {.name = NULL}};
  if (args_parse("puts", table, argc, argv, words, 0) < 0) return ARGS_USAGE;
  if (!c.directory || (c.way == WAY_DURABLE && c.writers != 1)) {
    fprintf(stderr, "puts: --dir is needed; --way=durable has one writer\n");
    return ARGS_USAGE;
  }
  mkdir(c.directory, 0777);
  if (run(&c, &rate, &cpu_us)) return 1;
  printf("%.1f\t%.2f\n", rate, cpu_us);
  return 0;
}
