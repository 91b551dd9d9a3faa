/* ctl_volume_export.c - volume export: a volume into a sparse file, or into a stream. One thread.
 *
 * A file appears under its name when it is complete, before that as FILE.part-PID. What is no
 * regular file (a pipe, a device) is written from front to back, zeros too. */
#include "tools/ctl.h"
#include "tools/progress.h"
#include "tools/volume_copy.h"
#include "tools/volume_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct output {
  const char *file;
  char path[PATH_MAX], part[PATH_MAX + 32]; /* part: empty unless there is one */
  int fd;
  bool sparse;
};

struct export {
  const struct ctl_options *o;
  struct output out;
  struct copy copy;
  struct stream_writer writer;
  struct sr_volume_info to, from;
  bool stream, incremental;
  uint64_t position;           /* raw, from front to back */
  uint64_t data_bytes;         /* that were written */
  struct sr_volume_range held; /* bytes 0: none; a range that the next one may continue */
  struct progress progress;
};

/* ---- Where it goes -----------------------------------------------------------------------------
 */

static int output_fail(const struct output *out, int error) {
  fprintf(stderr, "shard-ctl: %s: %s: %s\n", out->file, strerror(-error),
          error == -ENOSPC || error == -EFBIG ? "make room there, or take another place"
          : error == -EPIPE                   ? "whoever read it has gone"
                                              : "take another place");
  return CTL_FAILED;
}

/* A new file beside the one that it will replace. */
static int open_part(struct output *out) {
  if (!realpath(out->file, out->path)) {
    if (errno != ENOENT) return -errno;
    if (snprintf(out->path, sizeof(out->path), "%s", out->file) >= (int)sizeof(out->path))
      return -ENAMETOOLONG;
  }
  snprintf(out->part, sizeof(out->part), "%s.part-%d", out->path, (int)getpid());
  out->fd = open(out->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  int r = out->fd < 0 ? -errno : 0;
  if (r < 0) out->part[0] = 0;
  return r;
}

static int output_open(struct output *out, const char *file) {
  struct stat st;
  *out = (struct output){.file = file, .fd = STDOUT_FILENO};
  if (strcmp(file, "-") == 0) {
    out->file = "stdout";
    return 0;
  }
  if (stat(file, &st) < 0 ? errno == ENOENT : S_ISREG(st.st_mode)) {
    out->sparse = true;
    return open_part(out);
  }
  out->fd = open(file, O_WRONLY | O_CLOEXEC);
  return out->fd < 0 ? -errno : 0;
}

/* error: 0, or what has happened; then nothing is left behind. */
static int output_close(struct output *out, int error) {
  bool own = out->fd >= 0 && out->fd != STDOUT_FILENO;
  if (own && !error && fsync(out->fd) < 0 && errno != EINVAL && errno != EROFS) error = -errno;
  if (own && close(out->fd) < 0 && !error) error = -errno;
  if (!out->part[0]) return error;
  if (!error && rename(out->part, out->path) < 0) error = -errno;
  if (error) unlink(out->part);
  return error;
}

/* ---- What goes there ---------------------------------------------------------------------------
 */

static int put_zeros_until(struct export *e, uint64_t end) {
  static const char zeros[65536];
  int r = 0;
  while (r == 0 && e->position < end) {
    uint64_t left = end - e->position, n = left < sizeof(zeros) ? left : sizeof(zeros);
    r = stream_put(e->out.fd, zeros, n);
    e->position += n;
  }
  return r;
}

static int put_at(int fd, const char *buf, uint64_t bytes, uint64_t offset) {
  while (bytes > 0) {
    ssize_t n = pwrite(fd, buf, bytes, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    buf += n, offset += (uint64_t)n, bytes -= (uint64_t)n;
  }
  return 0;
}

static int put_data(struct export *e, uint64_t offset, const char *buf, uint32_t bytes) {
  e->data_bytes += bytes;
  if (e->stream) return stream_write_data(&e->writer, offset, buf, bytes);
  if (e->out.sparse) return put_at(e->out.fd, buf, bytes, offset);
  int r = put_zeros_until(e, offset);
  e->position = offset + bytes;
  return r < 0 ? r : stream_put(e->out.fd, buf, bytes);
}

/* Holes stay holes; only a stream of changes has to say where zeros are. */
static int put_zeros(struct export *e, uint64_t offset, uint64_t bytes) {
  return e->incremental ? stream_write_zeros(&e->writer, offset, bytes) : 0;
}

static int put_range(void *arg, uint64_t offset, const char *buf, uint64_t bytes) {
  struct export *e = arg;
  int r = buf ? 0 : put_zeros(e, offset, bytes);
  bool zeros;
  while (buf && r == 0 && bytes > 0) {
    uint32_t n = copy_run(buf, (uint32_t)bytes, &zeros);
    r = zeros ? put_zeros(e, offset, n) : put_data(e, offset, buf, n);
    buf += n, offset += n, bytes -= n;
  }
  progress_step(&e->progress, offset, e->to.size_bytes);
  return r;
}

/* ---- What is read ------------------------------------------------------------------------------
 */

static int copy_held(struct export *e) {
  struct sr_volume_range held = e->held;
  int r = 0;
  e->held.bytes = 0;
  if (held.zeros) return e->incremental ? copy_note(&e->copy, held.offset_bytes, held.bytes) : 0;
  while (r == 0 && held.bytes > 0) {
    uint32_t n = held.bytes < COPY_BYTES ? (uint32_t)held.bytes : COPY_BYTES;
    r = copy_read(&e->copy, held.offset_bytes, n);
    held.offset_bytes += n;
    held.bytes -= n;
  }
  return r;
}

/* Ranges that follow one another become one. The last one may reach beyond the volume's end. */
static int take_range(void *arg, const struct sr_volume_range *range) {
  struct export *e = arg;
  struct sr_volume_range *held = &e->held, next = *range;
  if (next.offset_bytes >= e->to.size_bytes) return 0;
  if (next.bytes > e->to.size_bytes - next.offset_bytes)
    next.bytes = e->to.size_bytes - next.offset_bytes;
  if (held->bytes && held->zeros == next.zeros &&
      held->offset_bytes + held->bytes == next.offset_bytes) {
    held->bytes += next.bytes;
    if (held->zeros || held->bytes < COPY_BYTES) return 0;
    next.bytes = 0;
  }
  int r = held->bytes ? copy_held(e) : 0;
  *held = next;
  return r;
}

static void uuid_bytes(const char text[37], uint8_t bytes[16]) {
  unsigned value;
  for (int i = 0; i < 16 && *text; text++) {
    if (*text == '-') continue;
    if (sscanf(text, "%2x", &value) != 1) return;
    bytes[i++] = (uint8_t)value;
    text++;
  }
}

static int begin_stream(struct export *e, struct sr_port *port) {
  struct sr_store_stats stats;
  struct stream_info info = {.incremental = e->incremental,
                             .block_bytes = e->to.block_bytes,
                             .size_bytes = e->to.size_bytes,
                             .to_id = e->to.id,
                             .from_size_bytes = e->from.size_bytes,
                             .from_id = e->from.id};
  int r = sr_store_stats(port, &stats);
  if (r < 0) return r;
  uuid_bytes(stats.uuid, info.store);
  memcpy(info.to, e->to.name, sizeof(info.to));
  memcpy(info.from, e->from.name, sizeof(info.from));
  return stream_write_begin(&e->writer, e->out.fd, &info);
}

static int finish_output(struct export *e) {
  if (e->stream) return stream_write_end(&e->writer);
  if (!e->out.sparse) return put_zeros_until(e, e->to.size_bytes);
  return ftruncate(e->out.fd, (off_t)e->to.size_bytes) < 0 ? -errno : 0;
}

static int volume_failed(const struct export *e, int error, bool at) {
  char text[SR_VOLUME_NAME_BYTES_MAX + 64];
  snprintf(text, sizeof(text), at ? "%s, byte %" PRIu64 : "%s", e->to.name, e->copy.failed_at);
  return ctl_volume_fail(text, error);
}

/* CTL_OK, or CTL_FAILED after a message; *error says that to output_close(). */
static int copy_all(struct export *e, struct ctl_session *s, struct sr_block *block, int *error) {
  int r = copy_begin(&e->copy, s->store, s->port, block);
  if (r < 0) return *error = r, volume_failed(e, r, false);
  e->copy.sink = put_range;
  e->copy.arg = e;
  int out = e->stream ? begin_stream(e, s->port) : 0;
  progress_begin(&e->progress, "export");
  if (out == 0)
    r = sr_volume_diff(s->port, e->incremental ? e->from.name : NULL, e->to.name, take_range, e);
  if (out == 0 && r == 0 && e->held.bytes) r = copy_held(e);
  int copied = copy_end(&e->copy);
  if (out == 0 && r == 0 && copied == 0) out = finish_output(e);
  progress_end(&e->progress);
  if (copied < 0 && e->copy.sink_failed) out = copied;
  if ((*error = out) < 0) return CTL_OK; /* output_close() is going to say it */
  *error = copied < 0 ? copied : r;
  return *error < 0 ? volume_failed(e, *error, copied < 0) : CTL_OK;
}

static int export_volume(struct export *e, struct ctl_session *s) {
  struct sr_block_options options = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *block;
  int error = 0;
  options.read_only = true;
  int r = sr_volume_open(s->port, e->to.name, &options, &block);
  if (r < 0) return ctl_volume_fail(e->to.name, r);
  r = output_open(&e->out, e->o->words[1]);
  int status = r < 0 ? output_fail(&e->out, r) : copy_all(e, s, block, &error);
  if (r == 0) error = output_close(&e->out, error);
  if (error < 0 && status == CTL_OK) status = output_fail(&e->out, error);
  sr_block_close(s->port, block);
  return status;
}

static int look_up(struct export *e, struct sr_port *port) {
  const char *since = e->o->volume.since;
  int r = sr_volume_stat(port, e->o->words[0], &e->to);
  if (r < 0) return ctl_volume_fail(e->o->words[0], r);
  if (!since) return CTL_OK;
  r = sr_volume_stat(port, since, &e->from);
  if (r < 0) return ctl_volume_fail(since, r);
  if (e->from.snapshot) return CTL_OK;
  fprintf(stderr, "shard-ctl: --since=%s: that is no snapshot: make one with volume snapshot\n",
          since);
  return CTL_FAILED;
}

static int usage(const char *text) {
  fprintf(stderr, "shard-ctl: volume export: %s\n", text);
  return CTL_USAGE;
}

int ctl_volume_export(const struct ctl_options *o) {
  struct ctl_session s;
  struct export e = {.o = o};
  bool to_stdout = strcmp(o->words[1], "-") == 0;
  e.incremental = o->volume.since;
  e.stream = !o->volume.raw && (e.incremental || o->volume.stream || to_stdout);
  if (o->volume.raw && (e.incremental || o->volume.stream))
    return usage("--raw excludes --since and --stream");
  if (to_stdout && o->json) return usage("--json needs a FILE: the volume goes to stdout");
  if (to_stdout && isatty(STDOUT_FILENO))
    return usage("stdout is a terminal: give it to something");
  signal(SIGPIPE, SIG_IGN); /* an error like others */
  int status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  status = look_up(&e, s.port);
  if (status == CTL_OK) status = export_volume(&e, &s);
  if (status == CTL_OK && o->json) {
    struct js *root = js_object();
    js_text(root, "name", e.to.name);
    js_bool(root, "stream", e.stream);
    js_count(root, "size_bytes", e.to.size_bytes);
    js_count(root, "data_bytes", e.data_bytes);
    status = ctl_print_json(root);
  }
  return ctl_close(&s, status);
}
