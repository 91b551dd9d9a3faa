/* vhost.c - the calls of shardring_vhost.h, from any thread but a core's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/vhost/server.h"

#define DISKS_MAX 16384u

/* ---- Life -------------------------------------------------------------------------------------
 */

/* Runs a function on the core of each home. The server's thread does not run, or has ended. */
static void call_homes(struct vhost_server *s, core_call_fn *fn) {
  for (uint32_t i = 0; i < s->store->core_count; i++) {
    struct shard_op op = {.kind = OP_CALL, .buf = s->homes[i]};
    memcpy(&op.work, &fn, sizeof fn);
    port_run(s->port, i, &op);
  }
}

static void free_server(struct vhost_server *s) {
  for (uint32_t i = 0; s->homes && i < s->store->core_count; i++) vhost_core_free(s->homes[i]);
  notifier_close(&s->notifier);
  if (s->wake.fd >= 0) close(s->wake.fd);
  if (s->epoll_fd >= 0) close(s->epoll_fd);
  port_close(s->control);
  port_close(s->port);
  free(s->homes);
  free(s->disks);
  pthread_cond_destroy(&s->gone);
  pthread_mutex_destroy(&s->lock);
  pthread_mutex_destroy(&s->control_lock);
  free(s);
}

static int make_homes(struct vhost_server *s) {
  s->homes = calloc(s->store->core_count, sizeof *s->homes);
  if (!s->homes) return -ENOMEM;
  for (uint32_t i = 0; i < s->store->core_count; i++)
    if (!(s->homes[i] = vhost_core_create(&s->store->cores[i]))) return -ENOMEM;
  return 0;
}

int sr_vhost_start(struct sr_store *store, const struct sr_vhost_options *options,
                   struct sr_vhost **vhost) {
  struct sr_vhost_options o;
  if (!store || !vhost) return -EINVAL;
  int r = options_copy(&o, sizeof o, options);
  if (r) return r;
  struct vhost_server *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  s->store = store_of(store);
  s->options = o;
  if (!s->options.disks_max) s->options.disks_max = DISKS_MAX;
  s->wake.fd = s->epoll_fd = -1;
  notifier_open(&s->notifier);
  pthread_mutex_init(&s->lock, NULL);
  pthread_mutex_init(&s->control_lock, NULL);
  pthread_cond_init(&s->gone, NULL);
  r = port_open(&s->port, s->store, UINT32_MAX);
  if (!r) r = port_open(&s->control, s->store, 64);
  if (!r) r = make_homes(s);
  if (r) {
    free_server(s);
    return r;
  }
  call_homes(s, vhost_core_begin);
  r = server_start(s);
  if (r) {
    call_homes(s, vhost_core_end);
    free_server(s);
    return r;
  }
  *vhost = (struct sr_vhost *)s;
  return 0;
}

void disk_take_away(struct vhost_server *s, struct disk *d) {
  bool hurries = d->client != NULL;
  d->closing = true;
  s->closing_some = true;
  /* Under the lock: cores never take it, and clients stay as they are. */
  if (hurries) hurry_block(s->control, d->block, true);
  server_wake(s);
  while (!d->gone) pthread_cond_wait(&s->gone, &s->lock);
  if (hurries) hurry_block(s->control, d->block, false);
}

void sr_vhost_stop(struct sr_vhost *vhost) {
  struct vhost_server *s = server_of(vhost);
  if (!s) return;
  pthread_mutex_lock(&s->control_lock);
  pthread_mutex_lock(&s->lock);
  while (s->disk_count) {
    struct disk *d = s->disks[s->disk_count - 1];
    disk_take_away(s, d);
    check(catalog_close_block(s->control, d->block) == 0);
    free(d);
  }
  s->stop = true;
  server_wake(s);
  pthread_mutex_unlock(&s->lock);
  pthread_join(s->thread, NULL);
  call_homes(s, vhost_core_end);
  pthread_mutex_unlock(&s->control_lock);
  free_server(s);
}

/* ---- Attach ------------------------------------------------------------------------------------
 */

/* A socket that nobody listens to is what a process that was killed has left. */
static int remove_stale(const char *path, const struct sockaddr_un *address) {
  struct stat st;
  if (lstat(path, &st) < 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(st.st_mode)) return -EEXIST;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  bool dead =
      connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
  close(fd);
  if (!dead) return -EEXIST;
  return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int listen_at(struct disk *d, const struct sr_vhost_disk *o) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(o->socket) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, o->socket);
  strcpy(d->socket, o->socket);
  int r = remove_stale(o->socket, &address);
  if (r) return r;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  /* Nobody else can connect before the mode is right: fchmod() before bind() is what bind() uses.
   */
  if (fchmod(fd, o->mode ? o->mode : 0600) < 0 ||
      bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
    r = -errno;
    close(fd);
    return r == -EADDRINUSE ? -EEXIST : r;
  }
  d->made_socket = true;
  d->source.fd = fd;
  /* bind() has taken the umask off. Stricter first, so that nobody was let in meanwhile. */
  if (chmod(o->socket, o->mode ? o->mode : 0600) < 0) return -errno;
  if (o->group > 0 && lchown(o->socket, (uid_t)-1, (gid_t)o->group) < 0) return -errno;
  return listen(fd, 16) < 0 ? -errno : 0;
}

static int listen_on(struct disk *d, const struct sr_vhost_disk *o) {
  d->source = (struct source){SOURCE_DISK, -1};
  if (o->socket_fd <= 0) return listen_at(d, o);
  struct sockaddr_un address;
  socklen_t bytes = sizeof address;
  if (getsockname(o->socket_fd, (struct sockaddr *)&address, &bytes) == 0 &&
      address.sun_family == AF_UNIX)
    snprintf(d->socket, sizeof d->socket, "%.*s", (int)sizeof address.sun_path, address.sun_path);
  d->source.fd = o->socket_fd;
  return 0;
}

static bool well_formed(const struct sr_vhost_disk *o) {
  uint32_t size = o->queue_size;
  if (!o->volume == !o->file || !o->socket == (o->socket_fd <= 0)) return false;
  if (o->queues > VHOST_QUEUES_MAX || o->cache > SR_VHOST_EPHEMERAL || o->mode & ~07777u)
    return false;
  if (o->serial && strlen(o->serial) > BLK_SERIAL_BYTES) return false;
  return size <= RING_SIZE_MAX && !(size & (size - 1)) && size != 1;
}

static int open_block(struct vhost_server *s, struct disk *d, const struct sr_vhost_disk *o) {
  struct volume_info info;
  if (o->file) snprintf(d->file, sizeof d->file, "%s", o->file);
  if (o->file)
    return catalog_open_file(s->control, o->file, o->read_only, BLK_SECTOR_BYTES, UINT32_MAX,
                             &d->block);
  int r = catalog_stat(s->control, o->volume, &info);
  if (!r) r = catalog_open_volume(s->control, o->volume, o->read_only, o->share, &d->block);
  if (r) return r;
  snprintf(d->volume, sizeof d->volume, "%s", info.name);
  snprintf(d->blk.serial, sizeof d->blk.serial, "%llu", (unsigned long long)info.id);
  d->discards = true;
  return 0;
}

static void fill_disk(struct disk *d, const struct sr_vhost_disk *o) {
  d->cache = o->cache;
  d->blk.size_bytes = atomic_load(&d->block->size_bytes);
  d->blk.block_bytes = d->blk.align_bytes = d->block->block_bytes;
  d->block->block_bytes = 512; /* our own handle: requests were held to align_bytes before */
  d->blk.read_only = d->block->read_only;
  d->blk.writeback = d->cache == SR_VHOST_WRITE_BACK ? BLK_WRITEBACK_UNKNOWN : BLK_WRITEBACK_OFF;
  d->blk.queues = (uint16_t)(o->queues ? o->queues : 1);
  d->blk.queue_size_max = (uint16_t)(o->queue_size ? o->queue_size : 256);
  if (o->serial) snprintf(d->blk.serial, sizeof d->blk.serial, "%s", o->serial);
}

/* With the lock. */
static int add_disk(struct vhost_server *s, struct disk *d) {
  bool found;
  uint32_t at = server_find(s, d->name, &found);
  if (found) return -EEXIST;
  if (s->disk_count == s->options.disks_max) return -ENOSPC;
  if (s->disk_count == s->disk_room) {
    uint32_t room = s->disk_room ? 2 * s->disk_room : 64;
    struct disk **disks = realloc(s->disks, room * sizeof *disks);
    if (!disks) return -ENOMEM;
    s->disks = disks;
    s->disk_room = room;
  }
  int r = server_listen(s, d);
  if (r) return r;
  memmove(&s->disks[at + 1], &s->disks[at], (s->disk_count - at) * sizeof s->disks[0]);
  s->disks[at] = d;
  s->disk_count++;
  return 0;
}

int disk_attach(struct vhost_server *s, const char *name, const struct sr_vhost_disk *o,
                struct disk **out) {
  struct disk *d = calloc(1, sizeof *d);
  bool found;
  if (!d) return -ENOMEM;
  d->server = s;
  snprintf(d->name, sizeof d->name, "%s", name);
  pthread_mutex_lock(&s->lock);
  server_find(s, name, &found);
  pthread_mutex_unlock(&s->lock);
  int r = found ? -EEXIST : open_block(s, d, o);
  if (r) {
    free(d);
    return r;
  }
  fill_disk(d, o);
  r = listen_on(d, o);
  pthread_mutex_lock(&s->lock);
  if (!r) r = add_disk(s, d);
  pthread_mutex_unlock(&s->lock);
  if (!r && out) *out = d;
  if (!r) return 0;
  if (d->source.fd >= 0 && d->source.fd != o->socket_fd) close(d->source.fd);
  if (d->made_socket) unlink(d->socket);
  check(catalog_close_block(s->control, d->block) == 0);
  free(d);
  return r;
}

int sr_vhost_attach(struct sr_vhost *vhost, const char *name, const struct sr_vhost_disk *disk) {
  struct vhost_server *s = server_of(vhost);
  struct sr_vhost_disk o;
  if (!s || !disk) return -EINVAL;
  int r = options_copy(&o, sizeof o, disk);
  if (r) return r;
  if (!well_formed(&o)) return -EINVAL;
  if (!name) name = o.volume ? o.volume : o.file;
  if (!*name) return -EINVAL;
  if (strlen(name) > 255) return -ENAMETOOLONG;
  pthread_mutex_lock(&s->control_lock);
  r = disk_attach(s, name, &o, NULL);
  pthread_mutex_unlock(&s->control_lock);
  return r;
}

/* ---- Detach, resize
 * ------------------------------------------------------------------------------ */

static int find_disk(const struct vhost_server *s, const char *name, struct disk **d) {
  bool found;
  uint32_t at = server_find(s, name, &found);
  if (!found || s->disks[at]->closing) return -ENOENT;
  *d = s->disks[at];
  return 0;
}

int sr_vhost_detach(struct sr_vhost *vhost, const char *name, bool force) {
  struct vhost_server *s = server_of(vhost);
  struct disk *d;
  if (!s || !name) return -EINVAL;
  pthread_mutex_lock(&s->control_lock);
  pthread_mutex_lock(&s->lock);
  int r = find_disk(s, name, &d);
  if (!r && d->client && !force) r = -EBUSY;
  if (!r) disk_take_away(s, d);
  pthread_mutex_unlock(&s->lock);
  if (!r) {
    check(catalog_close_block(s->control, d->block) == 0);
    free(d);
  }
  pthread_mutex_unlock(&s->control_lock);
  return r;
}

int sr_vhost_resized(struct sr_vhost *vhost, const char *name) {
  struct vhost_server *s = server_of(vhost);
  struct disk *d;
  if (!s || !name) return -EINVAL;
  pthread_mutex_lock(&s->lock);
  int r = find_disk(s, name, &d);
  if (!r) {
    __atomic_store_n(&d->blk.size_bytes, atomic_load(&d->block->size_bytes), __ATOMIC_RELAXED);
    if (d->client) client_config_changed(d->client);
  }
  pthread_mutex_unlock(&s->lock);
  return r;
}

/* ---- Looking ------------------------------------------------------------------------------------
 */

static uint64_t load(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }

static void add_queue(struct disk_counts *sum, const struct queue_stats *from) {
  sum->reads += load(&from->reads);
  sum->writes += load(&from->writes);
  sum->flushes += load(&from->flushes);
  sum->discards += load(&from->discards);
  sum->zeroes += load(&from->zeroes);
  sum->errors += load(&from->errors);
  sum->read_bytes += load(&from->read_bytes);
  sum->write_bytes += load(&from->write_bytes);
  sum->kicks += load(&from->kicks);
  sum->calls += load(&from->calls);
  sum->cpu_ns += load(&from->cpu_ns);
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) sum->latency_ns[i] += load(&from->latency_ns[i]);
}

void disk_count(const struct disk *d, struct disk_counts *sum) {
  struct limit_waits waits = block_limit_waits(d->block);
  *sum = d->before ? *d->before : (struct disk_counts){.reads = 0};
  sum->limit_waits += waits.count;
  sum->limit_wait_ns += waits.ns;
  for (uint32_t i = 0; d->queues && i < d->blk.queues; i++)
    add_queue(sum, &d->queues[i].queue.stats);
}

static void fill_counts(const struct disk *d, struct sr_vhost_info *info) {
  struct disk_counts c;
  disk_count(d, &c);
  info->reads = c.reads;
  info->writes = c.writes;
  info->flushes = c.flushes;
  info->discards = c.discards;
  info->zeroes = c.zeroes;
  info->errors = c.errors;
  info->read_bytes = c.read_bytes;
  info->write_bytes = c.write_bytes;
  info->kicks = c.kicks;
  info->calls = c.calls;
  info->cpu_ns = c.cpu_ns;
  info->limit_waits = c.limit_waits;
  info->limit_wait_ns = c.limit_wait_ns;
  memcpy(info->latency_ns, c.latency_ns, sizeof info->latency_ns);
}
_Static_assert(SR_LATENCY_BUCKETS == LATENCY_BUCKETS, "one scale");

static void fill_info(const struct disk *d, struct sr_vhost_info *info) {
  *info = (struct sr_vhost_info){.connected = d->client != NULL,
                                 .active = d->client && d->client->active,
                                 .read_only = d->blk.read_only,
                                 .striped = d->block->part_count > 1,
                                 .queues = d->blk.queues,
                                 .cache = d->cache,
                                 .connections = d->connections};
  memcpy(info->name, d->name, sizeof info->name);
  memcpy(info->volume, d->volume, sizeof info->volume);
  memcpy(info->socket, d->socket, sizeof info->socket);
  for (uint32_t i = 0; d->queues && i < d->blk.queues; i++) {
    info->queues_active += d->client && d->client->rings[i].running;
    info->in_flight += load(&d->queues[i].queue.stats.in_flight);
  }
  fill_counts(d, info);
}

int sr_vhost_stat(struct sr_vhost *vhost, const char *name, struct sr_vhost_info *info) {
  struct vhost_server *s = server_of(vhost);
  struct disk *d;
  if (!s || !name || !info) return -EINVAL;
  pthread_mutex_lock(&s->lock);
  int r = find_disk(s, name, &d);
  if (!r) fill_info(d, info);
  pthread_mutex_unlock(&s->lock);
  return r;
}

int sr_vhost_list(struct sr_vhost *vhost, const char *after, struct sr_vhost_info *infos,
                  uint32_t max) {
  struct vhost_server *s = server_of(vhost);
  bool found;
  uint32_t n = 0;
  if (!s || !after || !infos || !max || max > INT32_MAX) return -EINVAL;
  pthread_mutex_lock(&s->lock);
  uint32_t at = server_find(s, after, &found);
  for (at += found; at < s->disk_count && n < max; at++, n++) fill_info(s->disks[at], &infos[n]);
  pthread_mutex_unlock(&s->lock);
  return (int)n;
}
