/* serve.c - the tests' server of disks: a store's volumes, which it makes where they are missing,
 * on sockets until SIGTERM. One thread, besides those of the library.
 *
 * serve STORE DISK...; a disk is options with commas between them:
 *   volume=NAME,socket=PATH[,size=BYTES][,queues=N][,block=512|4096][,striped][,ro][,serial=TEXT]
 *   [,cache=back|through|ephemeral][,file=PATH]
 * It is attached under the volume's name, also if it is a file instead. "ready" on stdout: all
 * sockets listen. Then each line of stdin is answered by one on stdout: used NAME          bytes
 * that the volume holds resize NAME BYTES  "ok", and the guest is told stat NAME          counters
 * as name=value At the end the store is closed and "closed" is printed, with what each disk
 * counted. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/shardring_vhost.h"

enum { DISKS_MAX = 16 };

struct serve {
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  const char *names[DISKS_MAX];
  int disks;
};

static int failed(const char *what, const char *name, int error) {
  fprintf(stderr, "serve: %s %s: %s\n", what, name, strerror(-error));
  return 1;
}

static void event(void *arg, const struct sr_vhost_event *e) {
  (void)arg;
  fprintf(stderr, "event: %s: %s\n", e->disk, e->what);
}

/* ---- Disks ------------------------------------------------------------------------------------
 */

enum {
  KEY_VOLUME,
  KEY_SOCKET,
  KEY_SIZE,
  KEY_QUEUES,
  KEY_BLOCK,
  KEY_STRIPED,
  KEY_RO,
  KEY_SERIAL,
  KEY_CACHE,
  KEY_FILE,
};

static int cache_of(const char *text) {
  static const char *const names[] = {[SR_VHOST_WRITE_BACK] = "back",
                                      [SR_VHOST_WRITE_THROUGH] = "through",
                                      [SR_VHOST_EPHEMERAL] = "ephemeral"};
  for (int i = 0; i <= SR_VHOST_EPHEMERAL; i++)
    if (strcmp(text, names[i]) == 0) return i;
  return -EINVAL;
}

static int parse_disk(char *text, struct sr_volume_options *volume, struct sr_vhost_disk *disk) {
  char *const keys[] = {"volume", "socket", "size",  "queues", "block", "striped",
                        "ro",     "serial", "cache", "file",   NULL};
  char *value;
  int cache = SR_VHOST_WRITE_BACK;
  while (*text) {
    int key = getsubopt(&text, keys, &value);
    if (key < 0 || (!value && key != KEY_STRIPED && key != KEY_RO)) return -EINVAL;
    switch (key) {
    case KEY_VOLUME:
      disk->volume = value;
      break;
    case KEY_SOCKET:
      disk->socket = value;
      break;
    case KEY_SIZE:
      volume->size_bytes = strtoull(value, NULL, 0);
      break;
    case KEY_QUEUES:
      disk->queues = (uint32_t)strtoul(value, NULL, 0);
      break;
    case KEY_BLOCK:
      volume->block_bytes = (uint32_t)strtoul(value, NULL, 0);
      break;
    case KEY_STRIPED:
      volume->striped = true;
      break;
    case KEY_RO:
      disk->read_only = true;
      break;
    case KEY_SERIAL:
      disk->serial = value;
      break;
    case KEY_CACHE:
      cache = cache_of(value);
      break;
    case KEY_FILE:
      disk->file = value;
      break;
    }
  }
  if (cache < 0 || !disk->volume || !disk->socket) return -EINVAL;
  disk->cache = (uint32_t)cache;
  return 0;
}

static int make_volume(struct serve *s, const char *name, const struct sr_volume_options *volume) {
  int r = sr_volume_create(s->port, name, volume);
  if (!r) r = sr_flush(s->port);
  return r == -EEXIST ? 0 : r;
}

static int add_disk(struct serve *s, char *text) {
  struct sr_volume_options volume = SR_VOLUME_OPTIONS_INIT;
  struct sr_vhost_disk disk = SR_VHOST_DISK_INIT;
  volume.size_bytes = 64 << 20;
  int r = s->disks < DISKS_MAX ? parse_disk(text, &volume, &disk) : -EINVAL;
  if (r) return failed("a disk is", text, r);
  const char *name = disk.volume;
  if (disk.file)
    disk.volume = NULL;
  else if ((r = make_volume(s, name, &volume)))
    return failed("create", name, r);
  r = sr_vhost_attach(s->vhost, name, &disk);
  if (r) return failed("attach", name, r);
  s->names[s->disks++] = name;
  return 0;
}

/* ---- Questions --------------------------------------------------------------------------------
 */

static void print_stat(const struct serve *s, const char *name) {
  static struct sr_vhost_info i;
  int r = sr_vhost_stat(s->vhost, name, &i);
  if (r)
    printf("error: %s\n", strerror(-r));
  else
    printf("%s: connections=%" PRIu64 " queues_active=%" PRIu32 " reads=%" PRIu64 " writes=%" PRIu64
           " flushes=%" PRIu64 " discards=%" PRIu64 " zeroes=%" PRIu64 " errors=%" PRIu64
           " in_flight=%" PRIu64 "\n",
           name, i.connections, i.queues_active, i.reads, i.writes, i.flushes, i.discards, i.zeroes,
           i.errors, i.in_flight);
}

static void print_used(const struct serve *s, const char *name) {
  struct sr_volume_info info;
  int r = sr_volume_stat(s->port, name, &info);
  if (r)
    printf("error: %s\n", strerror(-r));
  else
    printf("%" PRIu64 "\n", info.used_bytes);
}

static void resize(const struct serve *s, const char *name, uint64_t bytes) {
  int r = sr_volume_resize(s->port, name, bytes, false);
  if (!r) r = sr_vhost_resized(s->vhost, name);
  printf("%s\n", r ? strerror(-r) : "ok");
}

static void answer(const struct serve *s, const char *line) {
  char what[16], name[256];
  uint64_t bytes = 0;
  int n = sscanf(line, "%15s %255s %" SCNu64, what, name, &bytes);
  if (n == 2 && strcmp(what, "used") == 0)
    print_used(s, name);
  else if (n == 2 && strcmp(what, "stat") == 0)
    print_stat(s, name);
  else if (n == 3 && strcmp(what, "resize") == 0)
    resize(s, name, bytes);
  else
    printf("error: what is %s\n", line);
  fflush(stdout);
}

/* Until a signal. Lines come one by one: who asks waits for the answer. */
static void serve(const struct serve *s, int signal_fd) {
  struct pollfd fds[2] = {{.fd = signal_fd, .events = POLLIN},
                          {.fd = STDIN_FILENO, .events = POLLIN}};
  char line[512];
  while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
    if (fds[0].revents) {
      struct signalfd_siginfo why;
      if (read(signal_fd, &why, sizeof why) == sizeof why)
        fprintf(stderr, "SIGTERM from process %" PRIu32 "\n", why.ssi_pid);
      return;
    }
    if (!fds[1].revents) continue;
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    if (n <= 0) {
      fds[1].fd = -1; /* nobody asks any more */
      continue;
    }
    line[n] = '\0';
    answer(s, line);
  }
}

static int start(struct serve *s, char **argv) {
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  struct sr_vhost_options options = SR_VHOST_OPTIONS_INIT;
  options.event = event;
  open.no_pin = true; /* other tests run beside */
  open.lock_timeout_ms = 5000;
  open.memory_dir = "/dev/shm"; /* as shard-host has it: it is killed by some tests */
  open.core_count = getenv("SERVE_CORES") ? (uint32_t)strtoul(getenv("SERVE_CORES"), NULL, 0) : 2;
  int r = sr_store_open(argv[1], &open, &s->store);
  if (r) return failed("open", argv[1], r);
  r = sr_port_open(s->store, NULL, &s->port);
  if (!r) r = sr_vhost_start(s->store, &options, &s->vhost);
  if (r) return failed("start", argv[1], r);
  for (int i = 2; argv[i]; i++)
    if ((r = add_disk(s, argv[i]))) return r;
  return 0;
}

int main(int argc, char **argv) {
  struct serve s = {.disks = 0};
  sigset_t signals;
  if (argc < 3) return fprintf(stderr, "usage: serve STORE DISK...\n"), 2;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
  int result = start(&s, argv);
  if (!result) {
    printf("ready\n");
    fflush(stdout);
    serve(&s, signal_fd);
    for (int i = 0; i < s.disks; i++) print_stat(&s, s.names[i]);
  }
  sr_vhost_stop(s.vhost);
  if (s.port) sr_port_close(s.port);
  int r = s.store ? sr_store_close(s.store) : 0;
  if (r) return failed("close", argv[1], r);
  printf("closed\n");
  close(signal_fd);
  return result;
}
