/* test_remote.c - disks of a vhost-user-blk server for any thread: more threads than there are
 * places, each with a part of the disk, while the server goes away and comes back; what happens
 * when it does not. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/nbdkit/remote.h"
#include "api/shardring_vhost.h"
#include "tests/random.h"

#define THREADS    40u
#define PART       (512u << 10)
#define DISK       (THREADS * (uint64_t)PART)
#define BYTES_MAX  (300u << 10) /* more than a buffer */
#define AWAY_TIMES 6u

struct rig {
  char dir[256], path[300], socket[108];
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  struct remote *remote;
  atomic_uint attaches;
  _Atomic int attach_error;
};

static void attach(struct rig *r) {
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  d.volume = "v";
  d.socket = r->socket;
  assert_int_equal(sr_vhost_attach(r->vhost, "v", &d), 0);
}

static void take_away(struct rig *r) { assert_int_equal(sr_vhost_detach(r->vhost, "v", true), 0); }

static int where(void *arg, char socket[108]) {
  struct rig *r = arg;
  atomic_fetch_add(&r->attaches, 1);
  memcpy(socket, r->socket, sizeof r->socket);
  return atomic_load(&r->attach_error);
}

static void say(void *arg, const char *line) { (void)arg, (void)line; }

static int try_open(struct rig *r, uint32_t patience_ms) {
  const struct remote_options o = {
      .attach = where, .say = say, .arg = r, .patience_ms = patience_ms};
  return remote_open(&r->remote, &o);
}

static int set_up(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  assert_non_null(r);
  snprintf(r->dir, sizeof r->dir, "/tmp/remote-XXXXXX"); /* paths of sockets are short */
  assert_non_null(mkdtemp(r->dir));
  snprintf(r->path, sizeof r->path, "%s/store", r->dir);
  assert_true(snprintf(r->socket, sizeof r->socket, "%.90s/socket", r->dir) < 108);
  f.size_bytes = 128 << 20;
  f.shards = 2;
  assert_int_equal(sr_format(r->path, &f), 0);
  o.core_count = 2;
  o.no_pin = true;
  assert_int_equal(sr_store_open(r->path, &o, &r->store), 0);
  assert_int_equal(sr_port_open(r->store, NULL, &r->port), 0);
  assert_int_equal(sr_vhost_start(r->store, NULL, &r->vhost), 0);
  v.size_bytes = DISK;
  v.striped = true;
  assert_int_equal(sr_volume_create(r->port, "v", &v), 0);
  attach(r);
  *state = r;
  return 0;
}

static int tear_down(void **state) {
  struct rig *r = *state;
  char command[400];
  if (r->remote) remote_close(r->remote);
  sr_vhost_stop(r->vhost);
  assert_int_equal(sr_port_close(r->port), 0);
  assert_int_equal(sr_store_close(r->store), 0);
  snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
  assert_int_equal(system(command), 0);
  free(r);
  return 0;
}

/* ---- Many threads ------------------------------------------------------------------------------
 */

static atomic_uint requests_done;
static atomic_bool enough;

struct worker {
  pthread_t thread;
  struct rig *rig;
  uint64_t base;
  struct random random;
  unsigned char *mirror, *buffer;
  int error;
  uint64_t wrong;
};

static int step(struct worker *w) {
  struct remote *remote = w->rig->remote;
  uint32_t bytes = 512 * (1 + (uint32_t)random_below(&w->random, 16));
  if (random_below(&w->random, 32) == 0) bytes = BYTES_MAX;
  uint32_t at = 512 * (uint32_t)random_below(&w->random, (PART - bytes) / 512 + 1);
  uint64_t offset = w->base + at;
  switch (random_below(&w->random, 8)) {
  case 0:
    memset(w->mirror + at, 0, bytes);
    return remote_run(remote, VFRONT_WRITE_ZEROES, NULL, bytes, offset);
  case 1:
    return remote_run(remote, VFRONT_FLUSH, NULL, 0, 0);
  case 2:
  case 3:
  case 4: {
    int r = remote_run(remote, VFRONT_READ, w->buffer, bytes, offset);
    if (!r && memcmp(w->buffer, w->mirror + at, bytes)) w->wrong++;
    return r;
  }
  default:
    for (uint32_t i = 0; i < bytes; i += 8) {
      uint64_t v = random_next(&w->random);
      memcpy(w->mirror + at + i, &v, sizeof v);
    }
    return remote_run(remote, VFRONT_WRITE, w->mirror + at, bytes, offset);
  }
}

static void *work(void *arg) {
  struct worker *w = arg;
  while (!atomic_load(&enough) && !w->error) {
    w->error = step(w);
    atomic_fetch_add(&requests_done, 1);
  }
  if (!w->error) w->error = remote_run(w->rig->remote, VFRONT_READ, w->buffer, PART, w->base);
  if (!w->error && memcmp(w->buffer, w->mirror, PART)) w->wrong++;
  return NULL;
}

/* So many more requests have ended. */
static void let_work(unsigned count) {
  unsigned end = atomic_load(&requests_done) + count;
  while ((int)(atomic_load(&requests_done) - end) < 0) usleep(1000);
}

static void t_goes_away(void **state) {
  struct rig *r = *state;
  static struct worker workers[THREADS];
  uint64_t size;
  uint32_t block;
  bool read_only;
  assert_int_equal(try_open(r, 60000), 0);
  atomic_store(&enough, false);
  for (uint32_t i = 0; i < THREADS; i++) {
    struct worker *w = &workers[i];
    *w = (struct worker){.rig = r, .base = i * (uint64_t)PART, .random = {i + 1}};
    w->mirror = calloc(1, PART);
    w->buffer = malloc(PART);
    assert_true(w->mirror && w->buffer);
    assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
  }
  for (uint32_t i = 0; i < AWAY_TIMES; i++) {
    let_work(400);
    take_away(r);
    if (i % 2) usleep(30000);
    attach(r);
    assert_int_equal(remote_look(r->remote, &size, &block, &read_only), 0);
    assert_int_equal(size, DISK);
    assert_false(read_only);
  }
  let_work(400);
  atomic_store(&enough, true);
  for (uint32_t i = 0; i < THREADS; i++) {
    struct worker *w = &workers[i];
    pthread_join(w->thread, NULL);
    assert_int_equal(w->error, 0);
    assert_int_equal(w->wrong, 0);
    free(w->mirror);
    free(w->buffer);
  }
  assert_true(atomic_load(&r->attaches) >= 1 + AWAY_TIMES);
}

/* ---- It stays away -----------------------------------------------------------------------------
 */

static void *read_once(void *arg) {
  struct worker *w = arg;
  char buffer[512];
  w->error = remote_run(w->rig->remote, VFRONT_READ, buffer, sizeof buffer, w->base);
  return NULL;
}

static void t_stays_away(void **state) {
  struct rig *r = *state;
  struct worker workers[8];
  uint64_t size;
  uint32_t block;
  bool read_only;
  char data[4096], back[4096];
  assert_int_equal(try_open(r, 50), 0);
  memset(data, 7, sizeof data);
  assert_int_equal(remote_run(r->remote, VFRONT_WRITE, data, sizeof data, 8192), 0);
  take_away(r);
  /* All that wait when patience ends, and all who come then. */
  for (uint32_t i = 0; i < 8; i++) {
    workers[i] = (struct worker){.rig = r, .base = i * 4096};
    assert_int_equal(pthread_create(&workers[i].thread, NULL, read_once, &workers[i]), 0);
  }
  for (uint32_t i = 0; i < 8; i++) {
    pthread_join(workers[i].thread, NULL);
    assert_int_equal(workers[i].error, -EIO);
  }
  assert_int_equal(remote_run(r->remote, VFRONT_READ, back, sizeof back, 8192), -EIO);
  assert_int_equal(remote_look(r->remote, &size, &block, &read_only), -EIO);
  attach(r);
  assert_int_equal(remote_look(r->remote, &size, &block, &read_only), 0);
  assert_int_equal(remote_run(r->remote, VFRONT_READ, back, sizeof back, 8192), 0);
  assert_memory_equal(data, back, sizeof data);

  /* Idle when it goes; a new size when it is back. */
  take_away(r);
  assert_int_equal(remote_look(r->remote, &size, &block, &read_only), -EIO);
  assert_int_equal(sr_volume_resize(r->port, "v", 2 * DISK, false), 0);
  attach(r);
  assert_int_equal(remote_look(r->remote, &size, &block, &read_only), 0);
  assert_int_equal(size, 2 * DISK);
}

static void t_refused(void **state) {
  struct rig *r = *state;
  char data[512] = {0};
  r->attach_error = -EBUSY;
  assert_int_equal(try_open(r, 60000), -EBUSY);
  r->attach_error = 0;
  assert_int_equal(try_open(r, 60000), 0);
  /* Outside the disk. */
  assert_int_equal(remote_run(r->remote, VFRONT_READ, data, sizeof data, DISK), -EIO);
  assert_int_equal(remote_run(r->remote, (enum vfront_op)99, NULL, 0, 0), -EOPNOTSUPP);
  assert_int_equal(remote_run(r->remote, VFRONT_WRITE, data, sizeof data, 0), 0);
  /* Who says that it will not come back is not waited for. */
  take_away(r);
  r->attach_error = -EACCES;
  assert_int_equal(remote_run(r->remote, VFRONT_READ, data, sizeof data, 0), -EIO);
  attach(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(t_goes_away, set_up, tear_down),
      cmocka_unit_test_setup_teardown(t_stays_away, set_up, tear_down),
      cmocka_unit_test_setup_teardown(t_refused, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
