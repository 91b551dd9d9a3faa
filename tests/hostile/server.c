/* server.c - our own server as a process of its own: a store on a real disk, and disks under four
 * sockets in its directory. It obeys one letter a time on stdin, answers each with a line, and goes
 * when stdin ends: then everything is taken down in order, so that what leaks is seen. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/shardring_vhost.h"
#include "tests/hostile/hostile.h"

#define TRY(call)                                                                                  \
  do {                                                                                             \
    int error_ = (call);                                                                           \
    if (error_ < 0) {                                                                              \
      fprintf(stderr, "server: %s: %s\n", #call, strerror(-error_));                               \
      return 1;                                                                                    \
    }                                                                                              \
  } while (0)

static void be_silent(void *arg, enum sr_log_level level, const char *line) {
  (void)arg, (void)level, (void)line;
}

static void tell_event(void *arg, const struct sr_vhost_event *event) {
  (void)arg;
  if (event->kind == SR_VHOST_DROPPED) fprintf(stderr, "  [%s: %s]\n", event->disk, event->what);
}

static int make_volume(struct sr_port *port, const char *name) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = DISK_BYTES;
  o.striped = true; /* its queues are on both cores */
  o.stripe_bytes = 65536;
  return sr_volume_create(port, name, &o);
}

static int attach(struct sr_vhost *v, const char *directory, const char *name) {
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  char path[300];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  d.volume = name;
  d.socket = path;
  d.queues = HOSTILE_QUEUES;
  d.queue_size = 256;
  d.serial = "hostile-serial-12345";
  return sr_vhost_attach(v, name, &d);
}

static int obey(struct sr_port *port, struct sr_vhost *v) {
  char letter;
  uint64_t size = DISK_BYTES;
  while (read(STDIN_FILENO, &letter, 1) == 1) {
    if (letter == 'r') {
      size = size == DISK_BYTES ? 2 * DISK_BYTES : DISK_BYTES;
      TRY(sr_volume_resize(port, "bad", size, true));
      TRY(sr_vhost_resized(v, "bad"));
    }
    printf("done\n");
    fflush(stdout);
  }
  return 0;
}

int own_server_main(const char *directory) {
  static const char *const names[] = {"bad", "good", "slow", "late"};
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  struct sr_vhost_options options = SR_VHOST_OPTIONS_INIT;
  struct sr_limits limits = SR_LIMITS_INIT;
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost, *hasty;
  char where[300];
  snprintf(where, sizeof where, "%s/store", directory);
  format.size_bytes = UINT64_C(96) << 20;
  format.shards = 2;
  open.core_count = 2;
  open.no_pin = true;
  open.log = be_silent; /* what clients do wrong is told by events */
  TRY(sr_format(where, &format));
  TRY(sr_store_open(where, &open, &store));
  TRY(sr_port_open(store, NULL, &port));
  for (uint32_t i = 0; i < array_size(names); i++) TRY(make_volume(port, names[i]));
  limits.ops.size = 40;
  limits.ops.refill_ms = 100; /* 400 a second */
  TRY(sr_volume_limit(port, "slow", &limits));
  if (getenv("HOSTILE_SAY")) options.event = tell_event;
  TRY(sr_vhost_start(store, &options, &vhost));
  options.activate_ms = 300;
  TRY(sr_vhost_start(store, &options, &hasty));
  for (uint32_t i = 0; i < array_size(names); i++)
    TRY(attach(i == 3 ? hasty : vhost, directory, names[i]));
  printf("ready\n");
  fflush(stdout);
  TRY(obey(port, vhost));
  sr_vhost_stop(hasty);
  sr_vhost_stop(vhost);
  TRY(sr_port_close(port));
  TRY(sr_store_close(store));
  return 0;
}
