/* ctl_salvage.c - salvage: copies every blob that still verifies out of a damaged store, into a new
 * store or into files that are named by id, and reports what is lost. The damaged store is opened
 * read-only and not changed.
 *
 * Lost is: a blob that the index knows and whose data do not verify, by its id; and whatever the
 * damaged places of logs and checkpoints held, by their place, since nobody knows the ids. Blobs
 * that may be older than the last ones that were put are copied, and named. Blobs that were put
 * without checksums are copied as they are. */
#include "tools/ctl.h"
#include "tools/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES  1048576u
#define LIST_ENTRIES 256
#define SHARD_BYTES  (UINT64_C(32) << 20)

struct salvage {
  const struct ctl_options *o;
  const char *target;
  struct js *root, *damage, *old, *lost; /* NULL: text */
  pthread_mutex_t mutex;                 /* the library may call from any of its threads */
  uint64_t damages, olds, losts, copied, copied_bytes;
  struct ctl_session from, to;
  char *buf;
  char error[512]; /* the last line that the library logged */
};

static void told_damage(void *arg, const struct sr_damage *d) {
  struct salvage *s = arg;
  char id[33];
  if (d->kind == SR_DAMAGE_NOTE) return;
  pthread_mutex_lock(&s->mutex);
  bool old = d->kind == SR_DAMAGE_OLD;
  s->damages += !old;
  s->olds += old;
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

static void lose(struct salvage *s, struct sr_id id, uint64_t bytes, int error) {
  char text[33];
  sr_id_format(id, text);
  pthread_mutex_lock(&s->mutex);
  s->losts++;
  const char *why = *s->error ? s->error : strerror(-error);
  if (s->root) {
    struct js *one = js_add(s->lost, NULL, js_object());
    js_text(one, "id", text);
    js_count(one, "size_bytes", bytes);
    js_text(one, "what", why);
  } else {
    printf("lost: blob %s, %" PRIu64 " bytes: %s\n", text, bytes, why);
  }
  *s->error = 0;
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

static int copy_all(struct salvage *s, uint64_t total) {
  struct sr_cursor cursor = {0};
  struct sr_entry entries[LIST_ENTRIES];
  struct progress p;
  uint64_t seen = 0;
  int n, r = 0;
  if (posix_memalign((void **)&s->buf, 4096, CHUNK_BYTES)) return -ENOMEM;
  progress_begin(&p, "salvage");
  while (r == 0 && (n = sr_list(s->from.port, &cursor, entries, LIST_ENTRIES)) != 0) {
    if (n < 0) r = n;
    for (int i = 0; r == 0 && i < n; i++) {
      r = copy_blob(s, &entries[i]);
      seen += entries[i].size_bytes;
      progress_step(&p, seen, total);
    }
  }
  progress_end(&p);
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

/* As large as what it is copied from, with some room: the copy lies without gaps. */
static uint64_t target_bytes(const struct salvage *s, const struct sr_space *space,
                             uint64_t shards) {
  struct stat st;
  if (s->o->size_bytes) return s->o->size_bytes;
  if (stat(s->target, &st) == 0 && !S_ISDIR(st.st_mode)) return 0; /* all of it */
  uint64_t live = space->live_bytes + space->blobs * 4096;
  uint64_t bytes = live + live / 4 + shards * SHARD_BYTES;
  return (bytes + 4095) & ~UINT64_C(4095);
}

static int open_to(struct salvage *s, const struct sr_space *space) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct ctl_options to = *s->o;
  if (s->o->files) {
    if (mkdir(s->target, 0777) == 0 || errno == EEXIST) return CTL_OK;
    return ctl_fail(s->target, -errno);
  }
  f.shards = s->o->shards ? (uint32_t)s->o->shards : sr_shard_count(s->from.store);
  f.size_bytes = target_bytes(s, space, f.shards);
  f.force = s->o->force;
  int r = sr_format(s->target, &f);
  if (r < 0) return ctl_fail(s->target, r);
  to.store = s->target;
  return ctl_open(&s->to, &to, false);
}

/* ---- The report -------------------------------------------------------------------------------
 */

static int report(struct salvage *s, bool complete) {
  char size[32];
  struct sr_store_stats st = {0};
  (void)sr_store_stats(s->from.port, &st);
  if (s->root) {
    js_count(s->root, "copied_blobs", s->copied);
    js_count(s->root, "copied_bytes", s->copied_bytes);
    js_count(s->root, "lost_blobs", s->losts);
    js_count(s->root, "old_blobs", s->olds);
    js_count(s->root, "lost_changes", st.lost_changes);
    js_bool(s->root, "complete", complete);
    js_bool(s->root, "ok", complete && !s->losts && !s->damages && !s->olds);
    int status = ctl_print_json(s->root);
    s->root = NULL;
    if (status != CTL_OK) return status;
  } else {
    printf("%" PRIu64 " blobs, %s copied; %" PRIu64 " lost by id, %" PRIu64
           " may be old ones; %" PRIu64 " damaged place%s%s\n",
           s->copied, ctl_human_bytes(s->copied_bytes, size), s->losts, s->olds, s->damages,
           s->damages == 1 ? "" : "s", complete ? "" : "; NOT COMPLETE");
  }
  return complete && !s->losts && !s->damages && !s->olds ? CTL_OK : CTL_FAILED;
}

static int run(struct salvage *s) {
  struct sr_space space = {0};
  int r = sr_space(s->from.port, &space);
  if (r < 0) return ctl_fail("space", r);
  int status = open_to(s, &space);
  if (status != CTL_OK) return status;
  r = copy_all(s, space.live_bytes);
  if (r < 0) ctl_fail(s->target, r);
  if (r == 0 && s->to.port) r = sr_flush(s->to.port);
  status = report(s, r == 0);
  if (s->to.store) status = ctl_close(&s->to, status);
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
  }
  int status = open_from(&s);
  if (status == CTL_OK) status = run(&s);
  if (s.root) js_free(s.root);
  if (s.from.store) status = ctl_close(&s.from, status);
  return status;
}
