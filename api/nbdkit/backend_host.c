/* backend_host.c - see backend.h: a daemon (shard-host) that has the store open. Lists and maps
 * come through its control socket; requests go through a disk that it attaches for us, as a virtual
 * machine's would.
 *
 * A volume is one disk of the daemon, "#ID.nbd", however many clients have it open here. Who was
 * killed leaves such disks behind: nobody is connected to them, and the next one takes them down.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/control/client.h"
#include "api/nbdkit/backend.h"
#include "api/nbdkit/remote.h"

#define ANSWER_MS     30000u
#define LIST_AT_ONCE  256u
#define SHARES_MAX    64u  /* servers of NBD with one volume open for writing */
#define DETACH_TRIES  200u /* 10 ms each */
#define DISK_SUFFIX   ".nbd"
#define DISK_NAME_MAX 40u

struct backend {
  const char *control, *directory;
  bool read_only, share;
  uint32_t patience_ms;
  void (*log)(void *arg, enum sr_log_level level, const char *line);
  pthread_mutex_t spare_lock;
  struct control_client *spare; /* a connection that nobody uses just now; NULL */
  /* Also while one is attached or detached: who opens a volume that another one closes waits. */
  pthread_mutex_t volumes_lock;
  struct volume *volumes;
};

/* A volume that somebody has open here. */
struct volume {
  struct backend *backend;
  struct volume *next;
  struct remote *remote;
  uint32_t users;
  uint64_t id;
  bool read_only;
  char name[DISK_NAME_MAX]; /* of the daemon's disk; "": none yet */
};

struct disk {
  struct volume *volume;
  struct disk_info info;
};

/* ---- Asking ------------------------------------------------------------------------------------
 */

static void say(void *arg, const char *line) {
  const struct volume *v = arg;
  char text[480];
  snprintf(text, sizeof text, "volume #%llu: %s", (unsigned long long)v->id, line);
  v->backend->log(NULL, SR_LOG_WARNING, text);
}

static struct control_client *swap_spare(struct backend *b, struct control_client *client) {
  pthread_mutex_lock(&b->spare_lock);
  struct control_client *before = b->spare;
  b->spare = client;
  pthread_mutex_unlock(&b->spare_lock);
  return before;
}

static int ask_on(struct control_client *client, const struct js *request, struct js **reply) {
  int r = control_ask(client, js_copy(request), reply, NULL, 0);
  switch (r) {
  case -ECONNRESET:
  case -ETIMEDOUT:
  case -EMFILE:    /* as many clients as may be */
  case -ESHUTDOWN: /* drains: another one may follow */
    return -EAGAIN;
  default:
    return r;
  }
}

/* -ECONNREFUSED: there is no daemon; -EAGAIN: it is just coming, going or changing. The connection
 * may be one that a daemon before this one has left to us. */
static int ask(struct backend *b, const struct js *request, struct js **reply) {
  struct control_client *client = swap_spare(b, NULL);
  int r = client ? ask_on(client, request, reply) : -EAGAIN;
  if (r == -EAGAIN) {
    control_close(client);
    client = NULL;
    r = control_open(&client, b->control, ANSWER_MS);
    if (r) return r == -ENOENT ? -ECONNREFUSED : r;
    r = ask_on(client, request, reply);
  }
  if (r == -EAGAIN || r == -EBADMSG) /* what comes next on it may answer this */
    control_close(client);
  else
    control_close(swap_spare(b, client));
  return r;
}

/* Takes the request. While there is no daemon it is asked again, until patience ends. */
static int ask_patiently(struct backend *b, struct js *request, struct js **reply) {
  const struct timespec nap = {.tv_nsec = 20000000};
  struct timespec from, now;
  int r;
  clock_gettime(CLOCK_MONOTONIC, &from);
  while ((r = ask(b, request, reply)) == -EAGAIN || r == -ECONNREFUSED) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((uint64_t)(now.tv_sec - from.tv_sec) * 1000 >= b->patience_ms) break;
    nanosleep(&nap, NULL);
  }
  js_free(request);
  return r == -EAGAIN ? -ECONNREFUSED : r;
}

/* Takes the request; the reply does not matter. */
static int tell(struct backend *b, struct js *request) {
  struct js *reply = NULL;
  int r = ask(b, request, &reply);
  js_free(request);
  if (!r) js_free(reply);
  return r;
}

static uint64_t count_in(const struct js *object, const char *key) {
  uint64_t value = 0;
  js_count_of(js_member(object, key), &value);
  return value;
}

static void text_in(const struct js *object, const char *key, char *to, size_t bytes) {
  snprintf(to, bytes, "%s", js_text_of(js_member(object, key)));
}

static bool is_true(const struct js *object, const char *key) {
  return js_number_of(js_member(object, key)) != 0;
}

/* ---- The daemon's disks ------------------------------------------------------------------------
 */

static int detach(struct backend *b, const char *name) {
  struct js *request = control_request("detach");
  js_text(request, "name", name);
  return tell(b, request);
}

static int attach(struct volume *v, const char *name, char socket[108]) {
  struct backend *b = v->backend;
  struct js *request = control_request("attach"), *reply;
  char id[24], path[4096];
  snprintf(id, sizeof id, "#%llu", (unsigned long long)v->id);
  js_text(request, "volume", id);
  js_text(request, "name", name);
  if (v->read_only) js_bool(request, "read_only", true);
  if (b->share) js_bool(request, "share", true);
  int r = ask(b, request, &reply);
  js_free(request);
  if (r) return r;
  const char *at = js_text_of(js_member(reply, "socket"));
  int n = *at == '/' ? snprintf(path, sizeof path, "%s", at)
                     : snprintf(path, sizeof path, "%s/%s", b->directory, at);
  js_free(reply);
  if (n < 108) return memcpy(socket, path, (size_t)n + 1), 0;
  detach(b, name);
  return -ENAMETOOLONG;
}

/* Nobody is connected to it: it goes. -EBUSY: somebody is. */
static int take_down(struct backend *b, const char *name) {
  int r = detach(b, name);
  return r == -ENOENT ? 0 : r;
}

static int attach_as(struct volume *v, const char *name, char socket[108]) {
  int r = attach(v, name, socket);
  if (r != -EEXIST) return r;
  r = take_down(v->backend, name);
  return r ? r : attach(v, name, socket);
}

/* For remote.h. The first time it finds a name, which it keeps. */
static int attach_volume(void *arg, char socket[108]) {
  struct volume *v = arg;
  char name[DISK_NAME_MAX];
  if (*v->name) {
    int r = attach_as(v, v->name, socket);
    /* It has not seen yet that we were disconnected; or it is to be waited for. */
    return r == -EBUSY || r == -ECONNREFUSED ? -EAGAIN : r;
  }
  for (uint32_t i = 0; i < SHARES_MAX; i++) {
    int n = snprintf(name, sizeof name, "#%llu" DISK_SUFFIX, (unsigned long long)v->id);
    if (i) snprintf(name + n, sizeof name - (size_t)n, ".%u", i + 1);
    int r = attach_as(v, name, socket);
    if (r == -EBUSY && v->backend->share) continue;
    if (!r) memcpy(v->name, name, sizeof name);
    return r == -ECONNREFUSED ? -EAGAIN : r;
  }
  return -EBUSY;
}

static bool is_ours(const char *name) {
  if (*name != '#') return false;
  size_t digits = strspn(name + 1, "0123456789");
  return digits && !strncmp(name + 1 + digits, DISK_SUFFIX, strlen(DISK_SUFFIX));
}

/* What servers before this one have left. One that is just about to connect to his attaches it
 * again. */
static int take_down_stale(struct backend *b) {
  char after[256] = "";
  bool more = true;
  while (more) {
    struct js *request = control_request("list"), *reply;
    js_text(request, "after", after);
    js_count(request, "max", LIST_AT_ONCE);
    int r = ask_patiently(b, request, &reply);
    if (r) return r;
    const struct js *disks = js_member(reply, "disks");
    for (size_t i = 0; i < js_size(disks); i++) {
      char place[24];
      snprintf(place, sizeof place, "%zu", i);
      const struct js *disk = js_find(disks, place);
      text_in(disk, "name", after, sizeof after);
      if (is_ours(after) && !is_true(disk, "connected")) detach(b, after);
    }
    more = is_true(reply, "more") && js_size(disks);
    js_free(reply);
  }
  return 0;
}

static void close_volume(struct volume *v) {
  const struct timespec nap = {.tv_nsec = 10000000};
  int r = 0;
  if (v->remote) remote_close(v->remote);
  /* The daemon sees a moment later that nobody is connected. */
  for (uint32_t i = 0; *v->name && i < DETACH_TRIES; i++) {
    r = take_down(v->backend, v->name);
    if (r != -EBUSY && r != -EAGAIN) break;
    nanosleep(&nap, NULL);
  }
  /* The next daemon knows nothing of it. */
  if (r && r != -ECONNREFUSED) say(v, "its disk could not be detached from shard-host");
  free(v);
}

/* ---- The daemon --------------------------------------------------------------------------------
 */

/* A volume that is still open here when nbdkit ends is closed: it does not close all disks. */
static int backend_close(struct backend *b) {
  if (!b) return 0;
  for (struct volume *v = b->volumes, *next; v; v = next) {
    next = v->next;
    close_volume(v);
  }
  control_close(b->spare);
  pthread_mutex_destroy(&b->volumes_lock);
  pthread_mutex_destroy(&b->spare_lock);
  free(b);
  return 0;
}

static int backend_open(struct backend **out, const struct backend_options *o) {
  struct control_client *client;
  struct backend *b = calloc(1, sizeof *b);
  if (!b) return -ENOMEM;
  *b = (struct backend){.control = o->control,
                        .directory = o->directory,
                        .read_only = o->read_only,
                        .share = o->share,
                        .patience_ms = o->patience_ms,
                        .log = o->log};
  pthread_mutex_init(&b->spare_lock, NULL);
  pthread_mutex_init(&b->volumes_lock, NULL);
  int r = control_open(&client, b->control, ANSWER_MS);
  if (!r) {
    b->spare = client;
    r = take_down_stale(b);
  }
  if (!r) {
    *out = b;
    return 0;
  }
  backend_close(b);
  return r;
}

static void read_volume(const struct js *json, struct sr_volume_info *v) {
  memset(v, 0, sizeof *v);
  text_in(json, "name", v->name, sizeof v->name);
  v->id = count_in(json, "id");
  v->size_bytes = count_in(json, "size_bytes");
  v->block_bytes = (uint32_t)count_in(json, "block_bytes");
  v->snapshot = !strcmp(js_text_of(js_member(json, "kind")), "snapshot");
}

/* Names are in order, so those before the prefix, and behind those that have it, are not of
 * interest.
 */
static int list_page(const struct js *volumes, const char *prefix, char *after, size_t after_bytes,
                     int (*fn)(void *arg, const struct sr_volume_info *info), void *arg) {
  for (size_t i = 0; i < js_size(volumes); i++) {
    char place[24];
    struct sr_volume_info v;
    snprintf(place, sizeof place, "%zu", i);
    read_volume(js_find(volumes, place), &v);
    snprintf(after, after_bytes, "%s", v.name);
    int order = strncmp(v.name, prefix, strlen(prefix));
    int r = order ? 0 : fn(arg, &v);
    if (r) return r;
  }
  return 0;
}

static int backend_list(struct backend *b, const char *prefix,
                        int (*fn)(void *arg, const struct sr_volume_info *info), void *arg) {
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "";
  bool more = true;
  while (more) {
    struct js *request = control_request("volumes"), *reply;
    js_text(request, "after", after);
    js_count(request, "max", LIST_AT_ONCE);
    int r = ask_patiently(b, request, &reply);
    if (r) return r;
    const struct js *volumes = js_member(reply, "volumes");
    r = list_page(volumes, prefix, after, sizeof after, fn, arg);
    more =
        is_true(reply, "more") && js_size(volumes) && strncmp(after, prefix, strlen(prefix)) <= 0;
    js_free(reply);
    if (r) return r;
  }
  return 0;
}

/* ---- Disks -------------------------------------------------------------------------------------
 */

static int open_volume(struct backend *b, uint64_t id, bool read_only, struct volume **out) {
  struct volume *v = calloc(1, sizeof *v);
  if (!v) return -ENOMEM;
  v->backend = b;
  v->id = id;
  v->read_only = read_only;
  const struct remote_options o = {
      .attach = attach_volume, .say = say, .arg = v, .patience_ms = b->patience_ms};
  int r = remote_open(&v->remote, &o);
  if (r) {
    close_volume(v);
    return r;
  }
  *out = v;
  return 0;
}

/* With the lock. */
static int use_volume(struct backend *b, uint64_t id, bool read_only, struct volume **out) {
  for (struct volume *v = b->volumes; v; v = v->next) {
    if (v->id != id || v->read_only != read_only) continue;
    v->users++;
    *out = v;
    return 0;
  }
  int r = open_volume(b, id, read_only, out);
  if (r) return r;
  (*out)->users = 1;
  (*out)->next = b->volumes;
  b->volumes = *out;
  return 0;
}

static void leave_volume(struct volume *v) {
  struct backend *b = v->backend;
  struct volume **at = &b->volumes;
  pthread_mutex_lock(&b->volumes_lock);
  if (--v->users == 0) {
    while (*at != v) at = &(*at)->next;
    *at = v->next;
    close_volume(v);
  }
  pthread_mutex_unlock(&b->volumes_lock);
}

static int find_volume(struct backend *b, const char *name, struct sr_volume_info *info) {
  struct js *request = control_request("stat"), *reply;
  js_text(request, "volume", name);
  int r = ask_patiently(b, request, &reply);
  if (r) return r;
  read_volume(js_member(reply, "volume"), info);
  js_free(reply);
  return 0;
}

static int disk_open(struct backend *b, const char *name, bool read_only, struct disk **out) {
  struct sr_volume_info v;
  struct disk *d = calloc(1, sizeof *d);
  if (!d) return -ENOMEM;
  int r = find_volume(b, name, &v);
  read_only = read_only || b->read_only || (!r && v.snapshot);
  if (!r) {
    pthread_mutex_lock(&b->volumes_lock);
    r = use_volume(b, v.id, read_only, &d->volume);
    pthread_mutex_unlock(&b->volumes_lock);
  }
  if (!r) {
    struct disk_info *info = &d->info;
    r = remote_look(d->volume->remote, &info->size_bytes, &info->block_bytes, &info->read_only);
    if (r) leave_volume(d->volume);
    memcpy(info->name, v.name, sizeof info->name);
    snprintf(info->description, sizeof info->description, "%s #%llu of a Shardring store%s",
             v.snapshot ? "snapshot" : "volume", (unsigned long long)v.id,
             read_only && !v.snapshot ? ", read-only" : "");
  }
  if (r) free(d);
  if (!r) *out = d;
  return r == -EAGAIN ? -ECONNREFUSED : r;
}

static void disk_close(struct disk *d) {
  leave_volume(d->volume);
  free(d);
}

static const struct disk_info *disk_info(const struct disk *d) { return &d->info; }

/* ---- Requests ----------------------------------------------------------------------------------
 */

static int run(struct disk *d, enum vfront_op op, void *buf, uint64_t bytes, uint64_t offset) {
  const struct disk_info *info = &d->info;
  if ((bytes | offset) & (info->block_bytes - 1) || bytes > info->size_bytes ||
      offset > info->size_bytes - bytes)
    return -EINVAL;
  if (op != VFRONT_READ && info->read_only) return -EROFS;
  return bytes ? remote_run(d->volume->remote, op, buf, bytes, offset) : 0;
}

static int disk_flush(struct disk *d) {
  return d->info.read_only ? 0 : remote_run(d->volume->remote, VFRONT_FLUSH, NULL, 0, 0);
}

static int disk_read(struct disk *d, void *buf, uint32_t bytes, uint64_t offset) {
  return run(d, VFRONT_READ, buf, bytes, offset);
}

/* virtio-blk has no FUA. */
static int disk_write(struct disk *d, const void *buf, uint32_t bytes, uint64_t offset,
                      bool durable) {
  int r = run(d, VFRONT_WRITE, (void *)(uintptr_t)buf, bytes, offset);
  return r || !durable ? r : disk_flush(d);
}

static int disk_zero(struct disk *d, uint32_t bytes, uint64_t offset, bool durable) {
  int r = run(d, VFRONT_WRITE_ZEROES, NULL, bytes, offset);
  return r || !durable ? r : disk_flush(d);
}

static int disk_discard(struct disk *d, uint32_t bytes, uint64_t offset, bool durable) {
  uint64_t mask = d->info.block_bytes - 1;
  uint64_t from = (offset + mask) & ~mask, to = (offset + bytes) & ~mask;
  int r = to > from ? run(d, VFRONT_DISCARD, NULL, to - from, from) : 0;
  return r || !durable ? r : disk_flush(d);
}

/* Calls fn for each of a page; *from is where the next one begins. */
static int ranges_page(const struct js *reply, uint64_t *from,
                       int (*fn)(void *arg, const struct sr_volume_range *range), void *arg) {
  const struct js *list = js_member(reply, "ranges");
  uint64_t end = count_in(reply, "end");
  if (end <= *from) return -EPROTO;
  for (size_t i = 0; i < js_size(list); i++) {
    struct sr_volume_range range = {0};
    char place[32];
    snprintf(place, sizeof place, "%zu/0", i);
    js_count_of(js_find(list, place), &range.offset_bytes);
    snprintf(place, sizeof place, "%zu/1", i);
    js_count_of(js_find(list, place), &range.bytes);
    if (range.offset_bytes < *from || !range.bytes || range.bytes > end ||
        range.offset_bytes > end - range.bytes)
      return -EPROTO;
    *from = range.offset_bytes + range.bytes;
    int r = fn(arg, &range);
    if (r) return r;
  }
  *from = end;
  return 0;
}

static int disk_ranges(struct disk *d, uint32_t bytes, uint64_t offset,
                       int (*fn)(void *arg, const struct sr_volume_range *range), void *arg) {
  char id[24];
  snprintf(id, sizeof id, "#%llu", (unsigned long long)d->volume->id);
  for (uint64_t at = offset, end = offset + bytes; at < end;) {
    struct js *request = control_request("ranges"), *reply;
    js_text(request, "volume", id);
    js_count(request, "offset", at);
    js_count(request, "bytes", end - at);
    int r = ask_patiently(d->volume->backend, request, &reply);
    if (r) return r;
    r = ranges_page(reply, &at, fn, arg);
    js_free(reply);
    if (r) return r;
  }
  return 0;
}

const struct backend_ops backend_host = {
    .open = backend_open,
    .close = backend_close,
    .list = backend_list,
    .disk_open = disk_open,
    .disk_close = disk_close,
    .disk_info = disk_info,
    .disk_read = disk_read,
    .disk_write = disk_write,
    .disk_zero = disk_zero,
    .disk_discard = disk_discard,
    .disk_flush = disk_flush,
    .disk_ranges = disk_ranges,
};
