/* vhost_null.c - a disk without data, for the cost of the way there and back: an empty volume of a
 * store in memory. Each read fills the guest's memory with zeros, no device is asked.
 *   vhost_null SOCKET [CPU]      serves until SIGTERM */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/shardring_vhost.h"

static void must(const char *what, int result) {
  if (result >= 0) return;
  fprintf(stderr, "vhost_null: %s: %s\n", what, strerror(-result));
  exit(1);
}

int main(int argc, char **argv) {
  struct sr_open_options open_options = SR_OPEN_OPTIONS_INIT;
  struct sr_volume_options volume = SR_VOLUME_OPTIONS_INIT;
  struct sr_vhost_options options = SR_VHOST_OPTIONS_INIT;
  struct sr_vhost_disk disk = SR_VHOST_DISK_INIT;
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  sigset_t end;
  int signal;
  if (argc < 2) {
    fprintf(stderr, "vhost_null SOCKET [CPU]\n");
    return 2;
  }
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  sigaddset(&end, SIGINT);
  sigprocmask(SIG_BLOCK, &end, NULL); /* before there are threads */
  if (argc > 2) open_options.cores = argv[2];
  volume.size_bytes = 1 << 28;
  disk.volume = "null";
  disk.socket = argv[1];
  must("mem:1G", sr_store_open("mem:1G", &open_options, &store));
  must("port", sr_port_open(store, NULL, &port));
  must("volume", sr_volume_create(port, "null", &volume));
  must("start", sr_vhost_start(store, &options, &vhost));
  must(argv[1], sr_vhost_attach(vhost, NULL, &disk));
  sigwait(&end, &signal);
  sr_vhost_stop(vhost);
  sr_port_close(port);
  must("close", sr_store_close(store));
  return 0;
}
