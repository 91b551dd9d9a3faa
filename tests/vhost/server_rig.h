/* server_rig.h - a store with two volumes, a server, and a front-end that checks everything: what
 * the tests of the server share. Included once by each program. */
#ifndef TESTS_VHOST_SERVER_RIG_H
#define TESTS_VHOST_SERVER_RIG_H

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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/vhost/handover.h"
#include "api/vhost/front.h"

#define DISK  (UINT64_C(16) << 20)
#define BLOCK 4096u

static bool packed; /* rings: the program's argument */

struct rig {
  char dir[256], store_path[300], socket[300];
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  struct vfront *front;
};

static void open_store(struct rig *r) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  o.core_count = 2;
  o.no_pin = true;
  o.lock_timeout_ms = 5000;
  assert_int_equal(sr_store_open(r->store_path, &o, &r->store), 0);
  assert_int_equal(sr_port_open(r->store, NULL, &r->port), 0);
  assert_int_equal(sr_vhost_start(r->store, NULL, &r->vhost), 0);
}

static void close_store(struct rig *r) {
  sr_vhost_stop(r->vhost);
  assert_int_equal(sr_port_close(r->port), 0);
  assert_int_equal(sr_store_close(r->store), 0);
  r->vhost = NULL;
}

static int set_up(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  const char *tmp = getenv("TMPDIR");
  assert_non_null(r);
  snprintf(r->dir, sizeof r->dir, "%s/vhost-XXXXXX", tmp ? tmp : ".");
  assert_non_null(mkdtemp(r->dir));
  snprintf(r->store_path, sizeof r->store_path, "%s/store", r->dir);
  snprintf(r->socket, sizeof r->socket, "%s/socket", r->dir);
  f.size_bytes = 96 << 20;
  f.shards = 2;
  assert_int_equal(sr_format(r->store_path, &f), 0);
  open_store(r);
  v.size_bytes = DISK;
  assert_int_equal(sr_volume_create(r->port, "plain", &v), 0);
  v.striped = true;
  assert_int_equal(sr_volume_create(r->port, "striped", &v), 0);
  *state = r;
  return 0;
}

static int tear_down(void **state) {
  struct rig *r = *state;
  char command[400];
  vfront_close(r->front);
  close_store(r);
  assert_int_not_equal(access(r->socket, F_OK), 0); /* it was taken away */
  snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
  assert_int_equal(system(command), 0);
  free(r);
  return 0;
}

static void attach(struct rig *r, const char *volume, uint32_t queues) {
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  d.volume = volume;
  d.socket = r->socket;
  d.queues = queues;
  d.serial = "a serial";
  assert_int_equal(sr_vhost_attach(r->vhost, "disk", &d), 0);
}

static void connect_front(struct rig *r, uint32_t queues) {
  char why[256] = "";
  struct vfront_options o = {.socket = r->socket,
                             .queues = queues,
                             .depth = 16,
                             .pieces = 4,
                             .regions = 2,
                             .buffer_bytes = 4 << 20,
                             .packed = packed,
                             .connect_ms = 5000};
  int e = vfront_open(&r->front, &o, why, sizeof why);
  if (e) fail_msg("%s: %s", strerror(-e), why);
}

static int transfer(struct rig *r, uint32_t queue, uint32_t op, uint64_t offset, uint32_t bytes) {
  struct vfront_request q = {
      .op = op, .bytes = bytes, .offset = offset, .buf = r->front->buffers, .pieces = 3};
  return vfront_do(&r->front->queues[queue], &q);
}

static struct sr_vhost_info info_of(struct rig *r) {
  struct sr_vhost_info info;
  assert_int_equal(sr_vhost_stat(r->vhost, "disk", &info), 0);
  return info;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
