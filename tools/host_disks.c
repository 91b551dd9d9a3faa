/* host_disks.c - requests that attach, detach and look at disks. Any worker's thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/host.h"
#include "tools/host_log.h"

enum { LIST_ENTRIES = 64 };

/* ---- Attach ---------------------------------------------------------------------------------- */

static const char *disk_name(const struct host_command *c) {
  return *c->name ? c->name : *c->volume ? c->volume : c->file;
}

/* Where the socket is to be: the one asked for, or the disk's name with ".sock". */
static int socket_path(const struct host *h, const struct host_command *c, char path[108],
                       char why[HOST_WHY_BYTES]) {
  const char *name = *c->socket ? c->socket : disk_name(c);
  const char *tail = *c->socket ? "" : ".sock";
  if (strchr(name, '/')) {
    snprintf(why, HOST_WHY_BYTES, "%s: cannot name a socket: say which with \"socket\"", name);
    return -EINVAL;
  }
  int n = snprintf(path, 108, "%s/%s%s", h->socket_dir, name, tail);
  if (n < 108) return 0;
  snprintf(why, HOST_WHY_BYTES,
           "the path of the socket would have %d bytes of 107: give a short one as \"socket\"", n);
  return -ENAMETOOLONG;
}

static int file_path(const struct host *h, const struct host_command *c, char path[4096],
                     char why[HOST_WHY_BYTES]) {
  if (!h->file_dir) {
    snprintf(why, HOST_WHY_BYTES,
             "no files are served: " HOST_TOOL " was started without "
             "--file-dir");
    return -EACCES;
  }
  int n = snprintf(path, 4096, "%s/%s", h->file_dir, c->file);
  return n < 4096 ? 0 : -ENAMETOOLONG;
}

/* A socket that came from outside under that name. */
static int take_inherited(struct host *h, const char *name) {
  pthread_mutex_lock(&h->lock);
  int fd = host_inherited_take(&h->inherited, name);
  pthread_mutex_unlock(&h->lock);
  return fd < 0 ? -ENOENT : fd;
}

static void give_back(struct host *h, const char *name, int fd) {
  pthread_mutex_lock(&h->lock);
  host_inherited_put(&h->inherited, name, fd);
  pthread_mutex_unlock(&h->lock);
}

static void fill_disk(const struct host *h, const struct host_command *c, struct sr_vhost_disk *d) {
  *d = (struct sr_vhost_disk)SR_VHOST_DISK_INIT;
  if (*c->volume) d->volume = c->volume;
  d->mode = (c->given & HOST_M_MODE) ? (uint32_t)c->mode : h->socket_mode;
  d->group = (c->given & HOST_M_GROUP_ID) ? (int64_t)c->group_id : h->socket_group;
  d->queues = (uint32_t)c->queues;
  d->queue_size = (uint32_t)c->queue_size;
  d->read_only = c->read_only;
  d->cache = (uint32_t)c->cache;
  d->share = c->share;
  if (*c->serial) d->serial = c->serial;
}

static int attach(struct host *h, const struct host_command *c, struct js *reply,
                  char why[HOST_WHY_BYTES]) {
  char path[108] = "", file[4096];
  struct sr_vhost_disk d;
  int r = 0;
  fill_disk(h, c, &d);
  if (h->draining) return -ESHUTDOWN;
  if (*c->file) {
    r = file_path(h, c, file, why);
    d.file = file;
  }
  if (r == 0 && !*c->listen) {
    r = socket_path(h, c, path, why);
    d.socket = path;
  }
  if (r == 0 && *c->listen) {
    r = d.socket_fd = take_inherited(h, c->listen);
    if (r < 0) snprintf(why, HOST_WHY_BYTES, "%s: no such socket was handed over", c->listen);
  }
  if (r >= 0) r = sr_vhost_attach(h->vhost, disk_name(c), &d);
  if (r < 0) {
    if (d.socket_fd > 0) give_back(h, c->listen, d.socket_fd); /* it is still ours */
    return r;
  }
  js_text(reply, "name", disk_name(c));
  if (*path) js_text(reply, "socket", path);
  return 0;
}

int host_attach(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)port;
  return attach(h, c, reply, why);
}

/* What was made for a disk that cannot be attached goes again. */
static int attach_new(struct host *h, struct sr_port *port, const struct host_command *c,
                      struct js *reply, char why[HOST_WHY_BYTES]) {
  int r = c->attach ? attach(h, c, reply, why) : 0;
  bool attached = c->attach && r == 0;
  if (r == 0) r = host_durable(port, c);
  if (r < 0) {
    if (attached) sr_vhost_detach(h->vhost, disk_name(c), true);
    sr_volume_remove(port, c->volume);
  } else if (!c->attach) {
    r = host_volume_json(port, c->volume, reply);
  }
  return r;
}

int host_clone(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
               char why[HOST_WHY_BYTES]) {
  struct sr_volume_options spec = SR_VOLUME_OPTIONS_INIT;
  spec.size_bytes = c->size_bytes;
  spec.on_shard = c->given & HOST_M_SHARD;
  spec.shard = (uint32_t)c->shard;
  if (c->attach && h->draining) return -ESHUTDOWN;
  int r = sr_volume_clone(port, c->snapshot, c->volume, &spec);
  return r < 0 ? r : attach_new(h, port, c, reply, why);
}

int host_create(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  struct sr_volume_options spec = SR_VOLUME_OPTIONS_INIT;
  spec.size_bytes = c->size_bytes;
  spec.block_bytes = (uint32_t)c->block_bytes;
  spec.striped = c->striped || c->stripe_bytes;
  spec.stripe_bytes = (uint32_t)c->stripe_bytes;
  spec.on_shard = c->given & HOST_M_SHARD;
  spec.shard = (uint32_t)c->shard;
  if (c->attach && h->draining) return -ESHUTDOWN;
  int r = sr_volume_create(port, c->volume, &spec);
  return r < 0 ? r : attach_new(h, port, c, reply, why);
}

/* ---- Detach ---------------------------------------------------------------------------------- */

/* Which volume goes with the disk; that it may. */
static int find_removable(struct host *h, struct sr_port *port, const struct host_command *c,
                          char volume[256], char why[HOST_WHY_BYTES]) {
  struct sr_volume_info v;
  struct sr_vhost_info *disk = malloc(sizeof(*disk));
  int r = disk ? sr_vhost_stat(h->vhost, c->name, disk) : -ENOMEM;
  if (r == 0) snprintf(volume, 256, "%s", disk->volume);
  free(disk);
  if (r < 0) return r;
  r = *volume ? sr_volume_stat(port, volume, &v) : -EINVAL;
  if (r == 0 && !v.snapshot) return 0;
  snprintf(why, HOST_WHY_BYTES,
           "%s: only volumes are removed with their disk, no snapshots or files", c->name);
  return r < 0 ? r : -EINVAL;
}

int host_detach(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  char volume[256] = "";
  int r = c->remove ? find_removable(h, port, c, volume, why) : 0;
  if (r == 0) r = sr_vhost_detach(h->vhost, c->name, c->force);
  if (r == -EBUSY)
    snprintf(why, HOST_WHY_BYTES, "%s: a monitor is connected: force disconnects it", c->name);
  if (r == 0 && *volume) {
    r = sr_volume_remove(port, volume);
    if (r < 0)
      snprintf(why, HOST_WHY_BYTES, "%s: detached, but the volume is still there: %s", c->name,
               strerror(-r));
  }
  if (r == 0) r = host_durable(port, c);
  if (r == 0 && *volume) js_text(reply, "removed", volume);
  return r;
}

/* ---- All disks ------------------------------------------------------------------------------- */

typedef int disk_fn(void *arg, const struct sr_vhost_info *disk);

/* Calls fn for each disk after `after`, until it returns something else than 0. Disks that come and
 * go meanwhile are seen or not. */
static int each_disk(struct host *h, const char *after, disk_fn *fn, void *arg) {
  struct sr_vhost_info *infos = malloc(LIST_ENTRIES * sizeof(*infos));
  char last[256];
  int n = infos ? 1 : -ENOMEM, r = 0;
  snprintf(last, sizeof(last), "%s", after);
  while (n > 0 && r == 0) {
    n = sr_vhost_list(h->vhost, last, infos, LIST_ENTRIES);
    for (int i = 0; i < n && r == 0; i++) r = fn(arg, infos + i);
    if (n > 0) snprintf(last, sizeof(last), "%s", infos[n - 1].name);
  }
  free(infos);
  return n < 0 ? n : r;
}

struct sweep {
  struct host *h;
  uint32_t left;
};
static int sweep_disk(void *arg, const struct sr_vhost_info *disk) {
  struct sweep *s = arg;
  int r = disk->connected ? -EBUSY : sr_vhost_detach(s->h->vhost, disk->name, false);
  if (r == 0) host_log(HOST_INFO, "drained", LOG_TEXT("disk", disk->name));
  if (r == -EBUSY) s->left++;
  return 0;
}

void host_sweep(struct host *h) {
  struct sweep s = {h, 0};
  each_disk(h, "", sweep_disk, &s);
  h->disks_left = s.left;
}

struct resized {
  struct host *h;
  const char *volume;
};
static int tell_disk(void *arg, const struct sr_vhost_info *disk) {
  struct resized *r = arg;
  if (strcmp(disk->volume, r->volume) == 0) sr_vhost_resized(r->h->vhost, disk->name);
  return 0;
}
void host_tell_resized(struct host *h, const char *volume) {
  struct resized r = {h, volume};
  each_disk(h, "", tell_disk, &r);
}

/* ---- Looking --------------------------------------------------------------------------------- */

static struct js *disk_json(const struct sr_vhost_info *d) {
  char word[32];
  struct js *json = js_object();
  js_text(json, "name", d->name);
  if (*d->volume) js_text(json, "volume", d->volume);
  if (*d->socket) js_text(json, "socket", d->socket);
  js_bool(json, "connected", d->connected);
  js_bool(json, "active", d->active);
  js_bool(json, "read_only", d->read_only);
  js_text(json, "cache", args_choice(host_cache_words, (int)d->cache, word, sizeof(word)));
  js_count(json, "queues", d->queues);
  js_count(json, "in_flight", d->in_flight);
  return json;
}

static struct js *disk_json_all(const struct sr_vhost_info *d) {
  struct js *json = disk_json(d);
  js_bool(json, "striped", d->striped);
  js_count(json, "queues_active", d->queues_active);
  js_count(json, "connections", d->connections);
  js_count(json, "reads", d->reads);
  js_count(json, "writes", d->writes);
  js_count(json, "flushes", d->flushes);
  js_count(json, "discards", d->discards);
  js_count(json, "zeroes", d->zeroes);
  js_count(json, "errors", d->errors);
  js_count(json, "read_bytes", d->read_bytes);
  js_count(json, "write_bytes", d->write_bytes);
  js_count(json, "kicks", d->kicks);
  js_count(json, "calls", d->calls);
  js_count(json, "cpu_ns", d->cpu_ns);
  js_count(json, "limit_waits", d->limit_waits);
  js_count(json, "limit_wait_ns", d->limit_wait_ns);
  return json;
}

struct listing {
  struct js *list;
  uint64_t left;
};
static int list_disk(void *arg, const struct sr_vhost_info *disk) {
  struct listing *l = arg;
  if (l->left == 0) return 1;
  l->left--;
  js_add(l->list, NULL, disk_json(disk));
  return 0;
}

int host_list(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
              char why[HOST_WHY_BYTES]) {
  (void)port, (void)why;
  struct listing l = {js_add(reply, "disks", js_array()), c->max};
  int r = each_disk(h, c->after, list_disk, &l);
  js_bool(reply, "more", r == 1);
  return r < 0 ? r : 0;
}

int host_stat(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
              char why[HOST_WHY_BYTES]) {
  (void)why;
  if (*c->volume) return host_volume_json(port, c->volume, reply);
  struct sr_vhost_info *disk = malloc(sizeof(*disk));
  int r = disk ? sr_vhost_stat(h->vhost, c->name, disk) : -ENOMEM;
  if (r == 0) {
    js_add(reply, "disk", disk_json_all(disk));
    /* It may be gone by now: then the disk alone is told. */
    if (*disk->volume) host_volume_json(port, disk->volume, reply);
  }
  free(disk);
  return r;
}

int host_drain(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
               char why[HOST_WHY_BYTES]) {
  (void)port, (void)why;
  h->draining = c->on;
  if (c->on) host_sweep(h);
  js_bool(reply, "draining", h->draining);
  if (c->on) js_count(reply, "disks_left", h->disks_left);
  return 0;
}
