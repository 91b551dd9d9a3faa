/* fixture.h - a temporary store for a test: its directory, its options, a log that is kept
 * instead of printed. Include after <cmocka.h>. */
#ifndef TESTS_API_FIXTURE_H
#define TESTS_API_FIXTURE_H

#include <linux/magic.h>
#include <sys/vfs.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/shardring.h"

#define MIB (UINT64_C(1) << 20)

struct fixture {
  char directory[256]; /* exists */
  char where[700];     /* the store: does not exist before format */
  char log[8192];      /* all lines since the last reset */
};

/* A zeroed request, ready to be filled. */
static inline struct sr_request request_of_op(uint32_t op, uint64_t id, void *buf, uint64_t bytes) {
  struct sr_request r;
  memset(&r, 0, sizeof r);
  r.op = op;
  r.id.lo = id;
  r.buf = buf;
  r.bytes = bytes;
  return r;
}
static inline struct sr_id id_of(uint64_t n) { return (struct sr_id){0x5eed, n}; }

static inline void keep_log(void *arg, enum sr_log_level level, const char *line) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* any core may have something to say */
  struct fixture *f = arg;
  (void)level;
  pthread_mutex_lock(&lock);
  size_t used = strlen(f->log);
  snprintf(f->log + used, sizeof f->log - used, "%s\n", line);
  pthread_mutex_unlock(&lock);
}

static inline int fixture_setup(void **state) {
  struct fixture *f = calloc(1, sizeof *f);
  const char *tmp = getenv("TMPDIR");
  snprintf(f->directory, sizeof f->directory, "%s/shardring-test-XXXXXX", tmp ? tmp : "/var/tmp");
  if (!mkdtemp(f->directory)) return -1;
  snprintf(f->where, sizeof f->where, "%s/store", f->directory);
  *state = f;
  return 0;
}

static inline int fixture_teardown(void **state) {
  struct fixture *f = *state;
  char command[400];
  snprintf(command, sizeof command, "rm -rf '%s'", f->directory);
  int r = system(command);
  free(f);
  return r;
}

static inline void format_store(struct fixture *f, uint32_t shards, uint64_t shard_bytes) {
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = shards * shard_bytes;
  o.shards = shards;
  assert_int_equal(sr_format(f->where, &o), 0);
}

static inline struct sr_open_options open_options(struct fixture *f) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  o.arena_bytes = 8 * MIB;
  o.log = keep_log;
  o.log_arg = f;
  f->log[0] = 0;
  return o;
}

static inline struct sr_store *open_store(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  int r = sr_store_open(f->where, &o, &s);
  if (r) print_error("open: %s\n%s", strerror(-r), f->log);
  assert_int_equal(r, 0);
  return s;
}

static inline struct sr_port *open_port(struct sr_store *s) {
  struct sr_port *p = NULL;
  assert_int_equal(sr_port_open(s, NULL, &p), 0);
  return p;
}

static inline void close_both(struct sr_store *s, struct sr_port *p) {
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
}

/* Bytes that only this blob has, at every place. */
static inline void fill_bytes(void *buf, uint64_t bytes, uint64_t seed) {
  uint8_t *b = buf;
  uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
  for (uint64_t i = 0; i < bytes; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    b[i] = (uint8_t)(x >> 32);
  }
}

/* Where memory of processes survives them. */
#define MEMORY_DIRECTORY "/dev/shm"
static inline bool have_memory(void) {
  struct statfs fs;
  return statfs(MEMORY_DIRECTORY, &fs) == 0 && fs.f_type == TMPFS_MAGIC &&
         fs.f_bavail * (uint64_t)fs.f_bsize >= 64 * MIB && access(MEMORY_DIRECTORY, W_OK) == 0;
}
#define SKIP_WITHOUT_MEMORY()                                                                      \
  if (!have_memory()) {                                                                            \
    fprintf(stderr, "skipped: %s is no tmpfs with 64 MiB that can be written\n",                   \
            MEMORY_DIRECTORY);                                                                     \
    skip();                                                                                        \
  }

#endif
