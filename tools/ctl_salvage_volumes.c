/* ctl_salvage_volumes.c - salvage of volumes: each is copied as a whole, thin, as a volume of the
 * same name, size, block size and stripes that depends on no other, or into a sparse file;
 * snapshots are sealed again. What they shared is copied as often as they are. Limits of volumes
 * are copied, those of groups are not.
 *
 * What cannot be read is reported with its place and left as zeros. Data that was written in place
 * has no checksum and is copied as it is. One thread. */
#include "tools/ctl_salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/volume_copy.h"

#define LIST_VOLUMES 64u
#define BLOCK        4096u
#define FILE_NAME    200u /* of a name as a file's; longer ones are cut, and get the id */

struct salvage_volumes {
  struct sr_volume_info *infos;
  uint64_t count, room;
};

/* One volume on its way. */
struct volume_copy {
  struct salvage *s;
  const struct sr_volume_info *info;
  struct sr_block *from, *to;  /* into a store */
  int fd;                      /* or into a file */
  char path[5000], name[64];   /* the file; the name until it is sealed, empty: its own */
  uint64_t data, lost;         /* bytes */
  uint64_t next;               /* before it everything has been looked at */
  bool whole;                  /* is lost */
  uint64_t lost_at, lost_held; /* a range that the next one may continue */
  char why[512];
  int failed; /* the target's error */
};

/* ---- Listing ------------------------------------------------------------------------------------
 */

static int list_more(struct sr_port *port, struct salvage_volumes *v) {
  if (v->room - v->count < LIST_VOLUMES) {
    uint64_t room = v->room ? 2 * v->room : 2 * LIST_VOLUMES;
    struct sr_volume_info *infos = realloc(v->infos, room * sizeof(*infos));
    if (!infos) return -ENOMEM;
    v->infos = infos;
    v->room = room;
  }
  const char *after = v->count ? v->infos[v->count - 1].name : "";
  int n = sr_volume_list(port, after, v->infos + v->count, LIST_VOLUMES);
  if (n > 0) v->count += (uint64_t)n;
  return n;
}

int salvage_volumes_list(struct salvage *s, struct salvage_volumes **list, uint64_t *bytes,
                         uint64_t *largest) {
  struct salvage_volumes *v = calloc(1, sizeof(*v));
  int n = v ? 1 : -ENOMEM;
  while (n > 0) n = list_more(s->from.port, v);
  *bytes = *largest = 0;
  for (uint64_t i = 0; n == 0 && i < v->count; i++) {
    uint64_t needs = v->infos[i].used_bytes + v->infos[i].shared_bytes;
    *bytes += needs;
    if (needs > *largest) *largest = needs;
  }
  *list = v;
  return n;
}

void salvage_volumes_free(struct salvage_volumes *v) {
  if (v) free(v->infos);
  free(v);
}

/* ---- What is lost -------------------------------------------------------------------------------
 */

static void report_lost(struct volume_copy *c, uint64_t at, uint64_t bytes, const char *why) {
  struct salvage *s = c->s;
  pthread_mutex_lock(&s->mutex);
  if (s->root) {
    struct js *one = js_add(s->lost, NULL, js_object());
    js_text(one, "volume", c->info->name);
    js_count(one, "offset_bytes", at);
    js_count(one, "bytes", bytes);
    js_text(one, "what", why);
  } else {
    printf("lost: volume %s, byte %" PRIu64 ", %" PRIu64 " bytes, now zeros: %s\n", c->info->name,
           at, bytes, why);
  }
  pthread_mutex_unlock(&s->mutex);
}

static void report_held(struct volume_copy *c) {
  if (c->lost_held) report_lost(c, c->lost_at, c->lost_held, c->why);
  c->lost += c->lost_held;
  c->lost_held = 0;
}

/* Ranges that follow each other are one. */
static void lose(struct volume_copy *c, uint64_t at, uint64_t bytes, int error) {
  if (c->lost_held && c->lost_at + c->lost_held != at) report_held(c);
  if (!c->lost_held) {
    pthread_mutex_lock(&c->s->mutex);
    snprintf(c->why, sizeof(c->why), "%s", salvage_why(c->s, error));
    pthread_mutex_unlock(&c->s->mutex);
    c->lost_at = at;
  }
  c->lost_held += bytes;
}

/* ---- Where it goes ------------------------------------------------------------------------------
 */

static bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

/* Names that any file system takes, and that say which volume it was: other bytes as %XX. */
static void file_name(const struct sr_volume_info *info, char out[FILE_NAME + 32]) {
  size_t used = 0;
  const char *at = info->name;
  for (; *at && used + 3 <= FILE_NAME; at++) {
    bool plain = is_plain(*at) && !(used == 0 && (*at == '.' || *at == '-'));
    used += (size_t)snprintf(out + used, 4, plain ? "%c" : "%%%02X", (unsigned char)*at);
  }
  if (*at) snprintf(out + used, 32, "-%" PRIu64, info->id);
}

static int open_file(struct volume_copy *c) {
  char name[FILE_NAME + 32] = "";
  file_name(c->info, name);
  snprintf(c->path, sizeof(c->path), "%s/volumes/%s.img", c->s->target, name);
  c->fd = open(c->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (c->fd < 0) return -errno;
  return ftruncate(c->fd, (off_t)c->info->size_bytes) ? -errno : 0;
}

static int open_volume(struct volume_copy *c) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  const struct sr_volume_info *info = c->info;
  v.size_bytes = info->size_bytes;
  v.block_bytes = info->block_bytes;
  v.stripe_bytes = info->stripe_bytes;
  v.striped = info->stripe_bytes != 0;
  if (info->snapshot) snprintf(c->name, sizeof(c->name), "salvage-%" PRIu64, info->id);
  const char *name = c->name[0] ? c->name : info->name;
  int r = sr_volume_create(c->s->to.port, name, &v);
  return r ? r : sr_volume_open(c->s->to.port, name, NULL, &c->to);
}

static int put_data(struct volume_copy *c, uint64_t at, const char *buf, uint64_t bytes) {
  if (c->to) {
    int64_t n = sr_volume_write(c->s->to.port, c->to, buf, at, bytes, 0);
    return n < 0 ? (int)n : 0;
  }
  while (bytes > 0) {
    ssize_t n = pwrite(c->fd, buf, bytes, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    buf += n, at += (uint64_t)n, bytes -= (uint64_t)n;
  }
  return 0;
}

static int seal(struct volume_copy *c) {
  struct sr_port *port = c->s->to.port;
  int r = sr_volume_snapshot(port, c->name, c->info->name);
  return r ? r : sr_volume_remove(port, c->name);
}

static int copy_limits(struct volume_copy *c) {
  struct sr_limits limits = SR_LIMITS_INIT;
  char group[64] = "";
  int r = sr_volume_limits(c->s->from.port, c->info->name, &limits, group);
  if (r || (!limits.bytes.size && !limits.ops.size && !group[0])) return r;
  limits.group = group[0] ? group : NULL;
  return sr_volume_limit(c->s->to.port, c->info->name, &limits);
}

/* Keeps all of it, or leaves nothing. error: 0, or the target's. */
static int close_target(struct volume_copy *c, int error) {
  struct sr_port *port = c->s->to.port;
  int r = error;
  if (c->fd >= 0) {
    if (!r && fsync(c->fd) < 0) r = -errno;
    if (close(c->fd) < 0 && !r) r = -errno;
    if (r) unlink(c->path);
  }
  if (c->to) {
    int closed = sr_volume_close(port, c->to);
    if (!r) r = closed;
    if (!r && c->name[0]) r = seal(c);
    if (!r && !c->name[0]) r = copy_limits(c);
    if (r) (void)sr_volume_remove(port, c->name[0] ? c->name : c->info->name);
  }
  return r;
}

/* ---- What is read -------------------------------------------------------------------------------
 */

static int put_what_is_data(struct volume_copy *c, uint64_t at, const char *buf, uint32_t bytes) {
  int r = 0;
  while (bytes > 0 && r == 0) {
    bool zeros;
    uint32_t n = copy_run(buf, bytes, &zeros);
    if (!zeros) r = put_data(c, at, buf, n);
    if (!zeros) c->data += n;
    buf += n, at += n, bytes -= n;
  }
  return r;
}

/* One bad block does not hide the others. */
static int copy_chunk(struct volume_copy *c, uint64_t at, uint32_t bytes) {
  struct salvage *s = c->s;
  if (sr_volume_read(s->from.port, c->from, s->buf, at, bytes) == (int64_t)bytes)
    return put_what_is_data(c, at, s->buf, bytes);
  int r = 0;
  for (uint32_t done = 0, n; done < bytes && r == 0; done += n) {
    n = bytes - done < BLOCK ? bytes - done : BLOCK;
    int64_t got = sr_volume_read(s->from.port, c->from, s->buf, at + done, n);
    if (got == (int64_t)n)
      r = put_what_is_data(c, at + done, s->buf, n);
    else
      lose(c, at + done, n, got < 0 ? (int)got : -EIO);
  }
  return r;
}

/* The last range may reach beyond the volume's end. */
static int copy_range(void *arg, const struct sr_volume_range *range) {
  struct volume_copy *c = arg;
  struct salvage *s = c->s;
  uint64_t at = range->offset_bytes, end = at + range->bytes;
  if (end > c->info->size_bytes) end = c->info->size_bytes;
  while (!range->zeros && at < end && !c->failed) {
    uint32_t n = end - at < SALVAGE_CHUNK_BYTES ? (uint32_t)(end - at) : SALVAGE_CHUNK_BYTES;
    c->failed = copy_chunk(c, at, n);
    at += n;
    s->seen_bytes += n;
    progress_step(&s->progress, s->seen_bytes, s->total_bytes);
  }
  c->next = end;
  return c->failed;
}

static int copy_volume(struct volume_copy *c) {
  struct salvage *s = c->s;
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  read_only.read_only = true;
  int r = sr_volume_open(s->from.port, c->info->name, &read_only, &c->from);
  if (r) {
    c->whole = true;
    lose(c, 0, c->info->size_bytes, r);
    report_held(c);
    return 0;
  }
  c->failed = s->o->files ? open_file(c) : open_volume(c);
  r = c->failed ? 0 : sr_volume_diff(s->from.port, NULL, c->info->name, copy_range, c);
  /* Where data lies behind it nobody can say. */
  if (r && !c->failed) lose(c, c->next, c->info->size_bytes - c->next, r);
  report_held(c);
  (void)sr_volume_close(s->from.port, c->from);
  return close_target(c, c->failed);
}

/* ---- All ----------------------------------------------------------------------------------------
 */

static void note_copied(struct volume_copy *c) {
  struct salvage *s = c->s;
  s->volume_bytes += c->data;
  s->copied_volumes += !c->whole;
  s->lost_volumes += c->whole;
  s->lost_volume_bytes += c->whole ? 0 : c->lost;
  if (!s->root || c->whole) return;
  struct js *one = js_add(s->volumes, NULL, js_object());
  js_text(one, "name", c->info->name);
  if (c->path[0]) js_text(one, "file", c->path);
  js_bool(one, "snapshot", c->info->snapshot);
  js_count(one, "size_bytes", c->info->size_bytes);
  js_count(one, "data_bytes", c->data);
  js_count(one, "lost_bytes", c->lost);
}

int salvage_volumes_copy(struct salvage *s, struct salvage_volumes *list) {
  char path[4200];
  snprintf(path, sizeof(path), "%s/volumes", s->target);
  if (s->o->files && list->count && mkdir(path, 0777) && errno != EEXIST) return -errno;
  for (uint64_t i = 0; i < list->count; i++) {
    struct volume_copy c = {.s = s, .info = &list->infos[i], .fd = -1};
    int r = copy_volume(&c);
    if (r) {
      fprintf(stderr, "shard-ctl: %s: cannot be copied to %s: %s\n", c.info->name, s->target,
              strerror(-r));
      return r;
    }
    note_copied(&c);
  }
  return 0;
}
