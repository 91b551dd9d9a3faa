/* ctl_salvage.c - salvage: copies every blob that still verifies, and all volumes, out of a damaged
 * store, into a new store or into files that are named by id (volumes: volumes/NAME.img), and
 * reports what is lost. The damaged store is opened read-only and not changed. Volumes:
 * ctl_salvage_volumes.c.
 *
 * Lost is: a blob that the index knows and whose data do not verify, by its id; and whatever the
 * damaged places of logs and checkpoints held, by their place, since nobody knows the ids. Blobs
 * that may be older than the last ones that were put are copied, and named. Blobs that were put
 * without checksums are copied as they are. */
#include "tools/ctl_salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES  SALVAGE_CHUNK_BYTES
#define LIST_ENTRIES 256
#define SHARD_BYTES  (UINT64_C(32) << 20)

static void told_damage(void *arg, const struct sr_damage *d) {
  struct salvage *s = arg;
  char id[33];
  if (d->kind == SR_DAMAGE_NOTE) return;
  pthread_mutex_lock(&s->mutex);
  bool old = d->kind == SR_DAMAGE_OLD, old_volume = d->kind == SR_DAMAGE_OLD_VOLUME;
  s->damages += !old && !old_volume;
  s->olds += old;
  s->old_volumes += old_volume;
  sr_id_format(d->id, id);
  if (!s->root)
    ctl_damage_print(d, s->o->store);
  else if (old)
    js_text(s->old, NULL, id);
  else
    ctl_damage_json(d, s->o->store, s->damage);
  pthread_mutex_unlock(&s->mutex);
}

static void told_line(void *arg, enum sr_log_level level, const char *line) {
  struct salvage *s = arg;
  if (level != SR_LOG_ERROR) return;
  pthread_mutex_lock(&s->mutex);
  snprintf(s->error, sizeof s->error, "%s", line);
  pthread_mutex_unlock(&s->mutex);
}

const char *salvage_why(struct salvage *s, int error) {
  static char why[sizeof(s->error)];
  snprintf(why, sizeof(why), "%s", *s->error ? s->error : strerror(-error));
  *s->error = 0;
  return why;
}

static void lose(struct salvage *s, struct sr_id id, uint64_t bytes, int error) {
  char text[33];
  sr_id_format(id, text);
  pthread_mutex_lock(&s->mutex);
  s->losts++;
  const char *why = salvage_why(s, error);
  if (s->root) {
    struct js *one = js_add(s->lost, NULL, js_object());
    js_text(one, "id", text);
    js_count(one, "size_bytes", bytes);
    js_text(one, "what", why);
  } else {
    printf("lost: blob %s, %" PRIu64 " bytes: %s\n", text, bytes, why);
  }
  pthread_mutex_unlock(&s->mutex);
}

/* ---- One blob -------------------------------------------------------------------------------- */

struct sink {
  struct sr_stream *stream; /* into a store */
  int fd;                   /* or into a file */
  char path[4200];
};

static int sink_open(struct salvage *s, struct sink *k, const struct sr_entry *e) {
  char id[33];
  k->fd = -1;
  k->stream = NULL;
  if (!s->o->files) return sr_stream_begin(s->to.port, e->id, e->size_bytes, 0, &k->stream);
  sr_id_format(e->id, id);
  snprintf(k->path, sizeof k->path, "%s/%s", s->target, id);
  k->fd = open(k->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  return k->fd < 0 ? -errno : 0;
}

static int sink_write(struct salvage *s, struct sink *k, const char *buf, uint64_t bytes) {
  if (k->stream) return sr_stream_append(s->to.port, k->stream, buf, bytes);
  while (bytes > 0) {
    ssize_t n = write(k->fd, buf, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    buf += n;
    bytes -= (uint64_t)n;
  }
  return 0;
}

/* Keeps the whole blob, or leaves nothing of it. */
static int sink_close(struct salvage *s, struct sink *k, bool keep) {
  if (k->stream)
    return keep ? sr_stream_commit(s->to.port, k->stream) : sr_stream_abort(s->to.port, k->stream);
  int r = keep && fsync(k->fd) < 0 ? -errno : 0;
  if (close(k->fd) < 0 && !r) r = -errno;
  if (!keep || r) unlink(k->path);
  return r;
}

/* 0, or the target's error: then it makes no sense to go on. */
static int copy_blob(struct salvage *s, const struct sr_entry *e) {
  struct sink k;
  int64_t n = 0;
  int r = sink_open(s, &k, e);
  if (r) return r;
  for (uint64_t at = 0; !r && n >= 0 && at < e->size_bytes; at += CHUNK_BYTES) {
    uint64_t left = e->size_bytes - at, want = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    n = sr_get(s->from.port, e->id, s->buf, at, want);
    if (n >= 0 && (uint64_t)n != want) n = -EIO;
    if (n >= 0) r = sink_write(s, &k, s->buf, want);
  }
  int c = sink_close(s, &k, !r && n >= 0);
  if (!r && n >= 0) r = c;
  if (n < 0) {
    lose(s, e->id, e->size_bytes, (int)n);
  } else if (!r) {
    s->copied++;
    s->copied_bytes += e->size_bytes;
  }
  return r;
}

static int copy_blobs(struct salvage *s) {
  struct sr_cursor cursor = {0};
  struct sr_entry entries[LIST_ENTRIES];
  int n, r = 0;
  while (r == 0 && (n = sr_list(s->from.port, &cursor, entries, LIST_ENTRIES)) != 0) {
    if (n < 0) r = n;
    for (int i = 0; r == 0 && i < n; i++) {
      r = copy_blob(s, &entries[i]);
      s->seen_bytes += entries[i].size_bytes;
      progress_step(&s->progress, s->seen_bytes, s->total_bytes);
    }
  }
  return r;
}

static int copy_all(struct salvage *s, struct salvage_volumes *volumes) {
  if (posix_memalign((void **)&s->buf, 4096, CHUNK_BYTES)) return -ENOMEM;
  progress_begin(&s->progress, "salvage");
  int r = copy_blobs(s);
  if (r == 0) r = salvage_volumes_copy(s, volumes);
  progress_end(&s->progress);
  free(s->buf);
  return r;
}

/* ---- From and to ------------------------------------------------------------------------------
 */

static int open_from(struct salvage *s) {
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  open.read_only = true;
  open.no_background = true;
  open.core_count = 1;
  open.damaged = SR_DAMAGED_SEARCH;
  open.damage = told_damage;
  open.damage_arg = s;
  open.log = told_line;
  open.log_arg = s;
  int r = sr_store_open(s->o->store, &open, &s->from.store);
  if (r == 0) r = sr_port_open(s->from.store, NULL, &s->from.port);
  if (r == 0) return CTL_OK;
  if (*s->error) fprintf(stderr, "shard-ctl: %s\n", s->error);
  return ctl_fail(s->o->store, r);
}

/* What is copied, and how much of it must lie in one shard. */
struct needs {
  uint64_t bytes, largest;
};

/* As large as what it is copied from, with some room: the copy lies without gaps. */
static uint64_t target_bytes(const struct salvage *s, const struct needs *needs, uint64_t shards) {
  struct stat st;
  if (s->o->size_bytes) return s->o->size_bytes;
  if (stat(s->target, &st) == 0 && !S_ISDIR(st.st_mode)) return 0; /* all of it */
  uint64_t bytes = needs->bytes + needs->bytes / 4 + shards * (SHARD_BYTES + needs->largest);
  return (bytes + 4095) & ~UINT64_C(4095);
}

static int open_to(struct salvage *s, const struct needs *needs) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct ctl_options to = *s->o;
  if (s->o->files) {
    if (mkdir(s->target, 0777) == 0 || errno == EEXIST) return CTL_OK;
    return ctl_fail(s->target, -errno);
  }
  f.shards = s->o->shards ? (uint32_t)s->o->shards : sr_shard_count(s->from.store);
  f.size_bytes = target_bytes(s, needs, f.shards);
  f.force = s->o->force;
  int r = sr_format(s->target, &f);
  if (r < 0) return ctl_fail(s->target, r);
  to.store = s->target;
  return ctl_open(&s->to, &to, false);
}

/* ---- The report -------------------------------------------------------------------------------
 */

static bool is_clean(const struct salvage *s) {
  return !s->losts && !s->damages && !s->olds && !s->old_volumes && !s->lost_volumes &&
         !s->lost_volume_bytes;
}

static int report_json(struct salvage *s, bool complete) {
  struct sr_store_stats st = {0};
  (void)sr_store_stats(s->from.port, &st);
  js_count(s->root, "copied_blobs", s->copied);
  js_count(s->root, "copied_bytes", s->copied_bytes);
  js_count(s->root, "lost_blobs", s->losts);
  js_count(s->root, "old_blobs", s->olds);
  js_count(s->root, "copied_volumes", s->copied_volumes);
  js_count(s->root, "volume_bytes", s->volume_bytes);
  js_count(s->root, "lost_volumes", s->lost_volumes);
  js_count(s->root, "lost_volume_bytes", s->lost_volume_bytes);
  js_count(s->root, "old_volumes", s->old_volumes);
  js_count(s->root, "lost_changes", st.lost_changes);
  js_bool(s->root, "complete", complete);
  js_bool(s->root, "ok", complete && is_clean(s));
  int status = ctl_print_json(s->root);
  s->root = NULL;
  return status;
}

static void report_text(const struct salvage *s, bool complete) {
  char size[32];
  printf("%" PRIu64 " blobs, %s copied; %" PRIu64 " lost by id, %" PRIu64
         " may be old ones; %" PRIu64 " damaged place%s%s\n",
         s->copied, ctl_human_bytes(s->copied_bytes, size), s->losts, s->olds, s->damages,
         s->damages == 1 ? "" : "s", complete ? "" : "; NOT COMPLETE");
  printf("%" PRIu64 " volumes, each whole by itself, %s of data copied; ", s->copied_volumes,
         ctl_human_bytes(s->volume_bytes, size));
  printf("%s lost in them", ctl_human_bytes(s->lost_volume_bytes, size));
  printf(", %" PRIu64 " lost, %" PRIu64 " may be old\n", s->lost_volumes, s->old_volumes);
}

static int report(struct salvage *s, bool complete) {
  int status = CTL_OK;
  if (s->root)
    status = report_json(s, complete);
  else
    report_text(s, complete);
  if (status != CTL_OK) return status;
  return complete && is_clean(s) ? CTL_OK : CTL_FAILED;
}

static int copy_to(struct salvage *s, struct salvage_volumes *volumes, const struct needs *needs) {
  int status = open_to(s, needs);
  if (status != CTL_OK) return status;
  s->total_bytes = needs->bytes;
  int r = copy_all(s, volumes);
  if (r < 0) ctl_fail(s->target, r);
  if (r == 0 && s->to.port) r = sr_flush(s->to.port);
  status = report(s, r == 0);
  if (s->to.store) status = ctl_close(&s->to, status);
  return status;
}

static int run(struct salvage *s) {
  struct sr_space space = {0};
  struct salvage_volumes *volumes = NULL;
  struct needs needs = {0};
  int r = sr_space(s->from.port, &space);
  if (r < 0) return ctl_fail("space", r);
  r = salvage_volumes_list(s, &volumes, &needs.bytes, &needs.largest);
  needs.bytes += space.live_bytes + space.blobs * 4096;
  int status = r < 0 ? ctl_fail("volumes", r) : copy_to(s, volumes, &needs);
  salvage_volumes_free(volumes);
  return status;
}

int ctl_salvage(const struct ctl_options *o) {
  struct salvage s = {.o = o, .target = o->words[0], .mutex = PTHREAD_MUTEX_INITIALIZER};
  if (o->json) {
    s.root = js_object();
    js_text(s.root, "store", o->store);
    js_text(s.root, "target", s.target);
    s.damage = js_add(s.root, "damage", js_array());
    s.lost = js_add(s.root, "lost", js_array());
    s.old = js_add(s.root, "old", js_array());
    s.volumes = js_add(s.root, "volumes", js_array());
  }
  int status = open_from(&s);
  if (status == CTL_OK) status = run(&s);
  if (s.root) js_free(s.root);
  if (s.from.store) status = ctl_close(&s.from, status);
  return status;
}
