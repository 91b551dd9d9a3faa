/* ctl_check.c - check: opens read-only (recovery itself examines identities, root, logs and
 * checkpoints of every shard), lists every blob, reads every byte of each and so verifies every
 * checksum, and compares the sums with what the store says of itself. Changes nothing.
 *
 * With --scrub it opens in spite of damage, and every byte that carries information is looked at:
 * both copies of identities and roots, logs, checkpoints, blobs to the end of their last block.
 *
 * A finding is one line: on stdout "where: what", or an entry of "findings" in JSON; with --scrub
 * also what can be done about it. What recovery reports while the store is opened is a finding,
 * too. Notes (what is no harm) are not counted. */
#include "tools/ctl_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHUNK_BYTES  1048576u
#define LIST_ENTRIES 256

void check_find(struct check *c, const char *where, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  pthread_mutex_lock(&c->mutex);
  c->found++;
  if (c->findings) {
    struct js *f = js_add(c->findings, NULL, js_object());
    js_text(f, "where", where);
    js_text(f, "what", text);
  } else {
    printf("%s: %s\n", where, text);
  }
  pthread_mutex_unlock(&c->mutex);
}

/* Of --scrub: the library has looked, and says what it found and where. */
static void damage_finding(void *arg, const struct sr_damage *d) {
  struct check *c = arg;
  bool note = d->kind == SR_DAMAGE_NOTE;
  pthread_mutex_lock(&c->mutex);
  c->found += !note;
  c->notes += note;
  if (c->findings)
    ctl_damage_json(d, c->o->store, note ? c->js_notes : c->findings);
  else
    ctl_damage_print(d, c->o->store);
  pthread_mutex_unlock(&c->mutex);
}

/* While the store is opened an error is a finding; later on it is the detail of one. */
static void log_finding(void *arg, enum sr_log_level level, const char *line) {
  struct check *c = arg;
  if (level == SR_LOG_ERROR && c->o->scrub) {
    pthread_mutex_lock(&c->mutex); /* told as damage; wanted only if nothing can be opened */
    snprintf(c->detail, sizeof(c->detail), "%s", line);
    pthread_mutex_unlock(&c->mutex);
  } else if (level == SR_LOG_ERROR && !c->opened) {
    check_find(c, "open", "%s", line);
  } else if (level == SR_LOG_ERROR) {
    pthread_mutex_lock(&c->mutex);
    snprintf(c->detail, sizeof(c->detail), "%s", line);
    pthread_mutex_unlock(&c->mutex);
  } else if (level == SR_LOG_WARNING && !c->o->scrub) {
    fprintf(stderr, "shard-ctl: %s\n", line);
  }
}

void check_take_detail(struct check *c, char text[512], int error) {
  pthread_mutex_lock(&c->mutex);
  snprintf(text, 512, "%s", c->detail[0] ? c->detail : strerror(error));
  c->detail[0] = 0;
  pthread_mutex_unlock(&c->mutex);
}

/* A bad place does not hide the others: the chunks behind it are read all the same. */
static void check_blob(struct check *c, struct sr_port *port, const struct sr_entry *e, char *buf) {
  char id[33], detail[512];
  uint64_t at = 0;
  sr_id_format(e->id, id);
  c->blobs++;
  do {
    uint64_t left = e->size_bytes - at, want = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    int64_t n = sr_get(port, e->id, buf, at, want);
    if (n < 0) {
      check_take_detail(c, detail, (int)-n);
      check_find(c, id, "bytes %" PRIu64 " to %" PRIu64 ": %s", at, at + want, detail);
    } else if ((uint64_t)n != want) {
      check_find(c, id, "%" PRIi64 " bytes of %" PRIu64 " at %" PRIu64, n, want, at);
    }
    at += want;
  } while (at < e->size_bytes);
  c->bytes += e->size_bytes;
}

static int check_blobs(struct check *c, struct sr_port *port, uint64_t total) {
  struct sr_cursor cursor = {0};
  struct sr_entry entries[LIST_ENTRIES];
  char *buf;
  int n;
  if (posix_memalign((void **)&buf, 4096, CHUNK_BYTES)) return -ENOMEM;
  progress_begin(&c->progress, "check");
  while ((n = sr_list(port, &cursor, entries, LIST_ENTRIES)) > 0)
    for (int i = 0; i < n; i++) {
      check_blob(c, port, &entries[i], buf);
      progress_step(&c->progress, c->bytes, total);
    }
  progress_end(&c->progress);
  free(buf);
  return n;
}

static void check_sums(struct check *c, struct sr_port *port, const struct sr_space *s) {
  int64_t count = sr_count(port);
  if (count < 0)
    check_find(c, "count", "%s", strerror((int)-count));
  else if ((uint64_t)count != c->blobs)
    check_find(c, "count", "the store counts %" PRIi64 " blobs, the list has %" PRIu64, count,
               c->blobs);
  if (s->live_bytes != c->bytes)
    check_find(c, "space", "the store counts %" PRIu64 " bytes in blobs, the list has %" PRIu64,
               s->live_bytes, c->bytes);
  if (s->free_bytes + s->pending_bytes > s->total_bytes)
    check_find(c, "space", "%" PRIu64 " bytes are free of %" PRIu64,
               s->free_bytes + s->pending_bytes, s->total_bytes);
}

/* Everything once, as fast as it goes; findings come by damage_finding(). */
static int scrub_all(struct check *c, struct sr_port *port) {
  struct sr_scrub_status st = {.running = true};
  const struct timespec pause = {.tv_nsec = 2000000};
  int r = sr_scrub_start(port, NULL);
  progress_begin(&c->progress, "check");
  while (r == 0 && st.running) {
    nanosleep(&pause, NULL);
    r = sr_scrub_status(port, &st);
    progress_step(&c->progress, st.done_bytes, st.total_bytes);
  }
  progress_end(&c->progress);
  c->blobs = st.checked_blobs;
  c->bytes = st.done_bytes;
  c->unverified = st.unverified_blobs;
  return r;
}

static void check_store(struct check *c, struct sr_store *store) {
  struct sr_port *port;
  struct sr_space space;
  int r = sr_port_open(store, NULL, &port);
  if (r < 0) {
    check_find(c, "port", "%s", strerror(-r));
    return;
  }
  r = sr_space(port, &space);
  if (r < 0) check_find(c, "space", "%s", strerror(-r));
  if (r == 0) check_volumes(c, port, &space);
  if (c->o->scrub) {
    r = scrub_all(c, port);
    if (r < 0) check_find(c, "scrub", "%s", strerror(-r));
    sr_port_close(port);
    return;
  }
  int listed = check_blobs(c, port, r < 0 ? 0 : space.live_bytes);
  if (listed < 0) check_find(c, "list", "%s", strerror(-listed));
  if (r == 0 && listed == 0) check_sums(c, port, &space);
  sr_port_close(port);
}

static int report(struct check *c, struct js *root) {
  char size[32], used[32];
  if (root) {
    js_count(root, "blobs", c->blobs);
    js_count(root, "bytes", c->bytes);
    js_count(root, "volumes", c->volumes);
    js_count(root, "snapshots", c->snapshots);
    js_count(root, "volume_bytes", c->volume_bytes);
    if (!c->o->scrub) js_count(root, "volume_read_bytes", c->volume_read_bytes);
    if (c->o->scrub) js_count(root, "unverified_blobs", c->unverified);
    js_count(root, "count", c->found);
    js_bool(root, "ok", c->found == 0);
    int status = ctl_print_json(root);
    if (status != CTL_OK) return status;
  } else {
    if (c->volumes)
      printf("%" PRIu64 " volume%s, %" PRIu64 " of them snapshots, %s in all, %s read\n",
             c->volumes, c->volumes == 1 ? "" : "s", c->snapshots,
             ctl_human_bytes(c->volume_bytes, used), ctl_human_bytes(c->volume_read_bytes, size));
    printf("%" PRIu64 " blobs, %s read, %" PRIu64 " finding%s\n", c->blobs,
           ctl_human_bytes(c->bytes, size), c->found, c->found == 1 ? "" : "s");
  }
  return c->found ? CTL_FAILED : CTL_OK;
}

int ctl_check(const struct ctl_options *o) {
  struct check c = {.o = o, .mutex = PTHREAD_MUTEX_INITIALIZER};
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  struct js *root = o->json ? js_object() : NULL;
  struct sr_store *store = NULL;
  if (root) {
    js_text(root, "store", o->store);
    c.findings = js_add(root, "findings", js_array());
    if (o->scrub) c.js_notes = js_add(root, "notes", js_array());
  }
  open.read_only = true;
  open.no_background = true;
  open.core_count = 1;
  open.log = log_finding;
  open.log_arg = &c;
  if (o->scrub) {
    open.damaged = SR_DAMAGED_SKIP;
    open.damage = damage_finding;
    open.damage_arg = &c;
  }
  int r = sr_store_open(o->store, &open, &store);
  c.opened = true;
  /* Not there, in use, forbidden: that says nothing about the store itself. */
  if (r == -ENOENT || r == -EBUSY || r == -EACCES || r == -EINVAL) {
    if (root) js_free(root);
    return ctl_fail(o->store, r);
  }
  if (r < 0)
    check_find(&c, o->store, "cannot be opened: %s%s%s", strerror(-r), o->scrub ? ": " : "",
               o->scrub ? c.detail : "");
  else
    check_store(&c, store);
  sr_store_close(store);
  return report(&c, root);
}
