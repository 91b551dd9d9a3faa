/* ctl_volume_import.c - volume import: a raw file or a stream becomes a volume, or a stream of
 * changes is brought onto one. One thread.
 *
 * A new volume is written under another name, NAME.import-PID, and renamed when it is complete and
 * flushed. Onto a volume, which must be as the snapshot that the stream begins at: a stream in a
 * file is read and verified before anything is changed; whatever fails afterwards is rolled back to
 * that snapshot. A process that is killed leaves the volume with a part of the changes (rollback
 * helps), or the one with the other name (rm). */
#include "tools/ctl.h"
#include "tools/progress.h"
#include "tools/volume_copy.h"
#include "tools/volume_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct input {
  const char *file;
  int fd;
  bool seekable; /* a file or device from its beginning, which may be read twice */
  uint64_t size_bytes;
  char early[STREAM_MAGIC_BYTES]; /* of what is not seekable */
  size_t early_bytes;
  bool stream;
};

struct import {
  const struct ctl_options *o;
  struct ctl_session *s;
  struct input in;
  struct stream_reader reader;
  struct sr_block *block;
  struct copy copy;
  const char *name;   /* that is asked for */
  const char *target; /* that is written to */
  struct progress progress;
};

static int usage(const char *text) {
  fprintf(stderr, "shard-ctl: volume import: %s\n", text);
  return CTL_USAGE;
}

/* ---- Where it comes from -----------------------------------------------------------------------
 */

static int input_fail(const struct input *in, int error) {
  fprintf(stderr, "shard-ctl: %s: %s: nothing was imported\n", in->file, strerror(-error));
  return CTL_FAILED;
}

static int input_size(struct input *in) {
  struct stat st;
  if (fstat(in->fd, &st) < 0) return -errno;
  if (S_ISDIR(st.st_mode)) return -EISDIR;
  if ((!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) || lseek(in->fd, 0, SEEK_CUR) != 0) return 0;
  off_t end = lseek(in->fd, 0, SEEK_END);
  if (end < 0 || lseek(in->fd, 0, SEEK_SET) < 0) return -errno;
  in->seekable = true;
  in->size_bytes = (uint64_t)end;
  return 0;
}

static int input_open(struct input *in, const char *file, bool raw) {
  bool named = strcmp(file, "-") != 0;
  *in = (struct input){.file = named ? file : "stdin", .fd = STDIN_FILENO};
  if (named && (in->fd = open(file, O_RDONLY | O_CLOEXEC)) < 0) return -errno;
  int r = input_size(in);
  if (r < 0) return r;
  int64_t n = stream_fill(in->fd, in->early, sizeof(in->early));
  if (n < 0) return (int)n;
  in->stream = !raw && n == STREAM_MAGIC_BYTES && memcmp(in->early, STREAM_MAGIC, (size_t)n) == 0;
  if (!in->seekable)
    in->early_bytes = (size_t)n;
  else if (lseek(in->fd, 0, SEEK_SET) < 0)
    return -errno;
  return 0;
}

static void input_close(struct input *in) {
  if (in->fd > STDIN_FILENO) close(in->fd);
}

static int stream_fail(const struct import *im, int error) {
  if (error == -EBADMSG || error == -ENOTSUP)
    fprintf(stderr, "shard-ctl: %s, byte %" PRIu64 ": %s: nothing was imported; export it again\n",
            im->in.file, im->reader.at, im->reader.why);
  else
    input_fail(&im->in, error);
  return CTL_FAILED;
}

static int target_fail(const struct import *im, int error) {
  char text[SR_VOLUME_NAME_BYTES_MAX + 64];
  snprintf(text, sizeof(text), "%s, byte %" PRIu64, im->name, im->copy.failed_at);
  return ctl_volume_fail(text, error);
}

/* ---- A stream into the volume that is open -----------------------------------------------------
 */

/* CTL_OK when all of it has come, was right and is in the volume. */
static int copy_stream(struct import *im) {
  struct stream_range range = {0};
  int r = 1, e = 0;
  while (e == 0 && r == 1) {
    char *buf = copy_buffer(&im->copy);
    if (!buf) break;
    r = stream_read_next(&im->reader, &range, buf);
    if (r != 1) break;
    if (!range.zeros)
      e = copy_write(&im->copy, buf, range.offset, (uint32_t)range.bytes);
    else if (im->reader.info.incremental) /* a new volume is zeros already */
      e = copy_zeros(&im->copy, range.offset, range.bytes);
    progress_step(&im->progress, range.offset, im->reader.info.size_bytes);
  }
  if (r < 0) return stream_fail(im, r);
  e = copy_drain(&im->copy);
  return e < 0 ? target_fail(im, e) : CTL_OK;
}

/* Reads a stream in a file to its end and goes back to the beginning of its ranges. */
static int verify_stream(struct import *im) {
  struct stream_reader *reader = &im->reader, begin = *reader;
  struct stream_range range;
  char *buf = malloc(STREAM_DATA_MAX);
  int r = buf ? 1 : -ENOMEM;
  while (r == 1) r = stream_read_next(reader, &range, buf);
  free(buf);
  if (r < 0) return stream_fail(im, r);
  *reader = begin;
  return lseek(im->in.fd, (off_t)begin.at, SEEK_SET) < 0 ? input_fail(&im->in, -errno) : CTL_OK;
}

/* ---- A raw file into the volume that is open ---------------------------------------------------
 */

/* buf of COPY_BYTES holds n bytes from that offset on. */
static int write_raw(struct import *im, char *buf, uint64_t offset, uint32_t n) {
  uint32_t block = sr_block_block_bytes(im->block), whole = (n + block - 1) / block * block;
  memset(buf + n, 0, whole - n);
  return copy_write_sparse(&im->copy, buf, offset, whole);
}

static int copy_extent(struct import *im, uint64_t at, uint64_t end) {
  int r = 0;
  while (r == 0 && at < end) {
    uint32_t want = end - at < COPY_BYTES ? (uint32_t)(end - at) : COPY_BYTES;
    char *buf = copy_buffer(&im->copy);
    if (!buf) break;
    int64_t n = stream_fill(im->in.fd, buf, want);
    if (n < 0) return input_fail(&im->in, (int)n);
    if ((uint64_t)n != want) {
      fprintf(stderr, "shard-ctl: %s: became shorter while it was read: nothing was imported\n",
              im->in.file);
      return CTL_FAILED;
    }
    r = write_raw(im, buf, at, want);
    at += want;
    progress_step(&im->progress, at, im->in.size_bytes);
  }
  return CTL_OK; /* errors of the volume: by copy_drain() */
}

/* The next data of a file from `at` on; begins at a multiple of 4096. False: there is no more.
 * What knows no holes is all data. */
static bool next_extent(const struct input *in, uint64_t at, uint64_t *begin, uint64_t *end) {
  off_t data = lseek(in->fd, (off_t)at, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return false;
  *begin = data < 0 ? at : (uint64_t)data / 4096 * 4096;
  off_t hole = data < 0 ? -1 : lseek(in->fd, data, SEEK_HOLE);
  *end = hole < 0 ? in->size_bytes : (uint64_t)hole;
  if (*begin < at) *begin = at;
  *end = (*end + 4095) / 4096 * 4096;
  if (*end > in->size_bytes) *end = in->size_bytes;
  return *begin < *end;
}

static int copy_file(struct import *im) {
  uint64_t at = 0, begin, end;
  int status = CTL_OK;
  while (status == CTL_OK && at < im->in.size_bytes && next_extent(&im->in, at, &begin, &end)) {
    if (lseek(im->in.fd, (off_t)begin, SEEK_SET) < 0) return input_fail(&im->in, -errno);
    status = copy_extent(im, begin, end);
    at = end;
  }
  return status;
}

/* Exactly --size bytes: what is cut short must not pass for a volume. */
static int copy_pipe(struct import *im) {
  uint64_t size = im->in.size_bytes, at = 0;
  int64_t n = 1;
  int r = 0;
  char more;
  while (r == 0 && n > 0 && at < size) {
    uint64_t early = at == 0 ? im->in.early_bytes : 0;
    uint32_t want = size - at < COPY_BYTES ? (uint32_t)(size - at) : COPY_BYTES;
    char *buf = copy_buffer(&im->copy);
    if (!buf) return CTL_OK;
    if (early > want) break;
    memcpy(buf, im->in.early, early);
    n = stream_fill(im->in.fd, buf + early, want - early);
    if (n < 0) return input_fail(&im->in, (int)n);
    if ((uint64_t)n + early < want) break;
    r = write_raw(im, buf, at, want);
    at += want;
    progress_step(&im->progress, at, size);
  }
  if (r == 0 && (at < size || stream_fill(im->in.fd, &more, 1) != 0)) {
    fprintf(stderr, "shard-ctl: %s: %s than --size: nothing was imported\n", im->in.file,
            at < size ? "shorter" : "longer");
    return CTL_FAILED;
  }
  return CTL_OK;
}

static int copy_raw(struct import *im) {
  int status = im->in.seekable ? copy_file(im) : copy_pipe(im);
  int r = copy_drain(&im->copy);
  return status == CTL_OK && r < 0 ? target_fail(im, r) : status;
}

/* ---- Into a volume ------------------------------------------------------------------------------
 */

/* Opens the target, fills it, flushes and closes it. */
static int fill_target(struct import *im) {
  struct sr_port *port = im->s->port;
  int r = sr_volume_open(port, im->target, NULL, &im->block);
  if (r < 0) return ctl_volume_fail(im->target, r);
  int status = CTL_OK;
  r = copy_begin(&im->copy, im->s->store, port, im->block);
  if (r < 0) {
    status = ctl_fail(im->name, r);
  } else {
    progress_begin(&im->progress, "import");
    status = im->in.stream ? copy_stream(im) : copy_raw(im);
    progress_end(&im->progress);
    copy_end(&im->copy);
  }
  if (status == CTL_OK && (r = sr_block_flush(port, im->block)) < 0)
    status = ctl_volume_fail(im->name, r);
  r = sr_block_close(port, im->block);
  return r < 0 && status == CTL_OK ? ctl_volume_fail(im->name, r) : status;
}

static int new_spec(const struct import *im, struct sr_volume_options *spec) {
  const struct ctl_volume_options *v = &im->o->volume;
  ctl_volume_spec(im->o, spec);
  if (im->in.stream) spec->block_bytes = im->reader.info.block_bytes;
  uint64_t content = im->in.stream ? im->reader.info.size_bytes : im->in.size_bytes;
  uint64_t whole = (content + spec->block_bytes - 1) / spec->block_bytes * spec->block_bytes;
  if (v->size_given && v->size_bytes < whole) {
    fprintf(stderr, "shard-ctl: --size=%" PRIu64 " is less than the %" PRIu64 " bytes of %s\n",
            v->size_bytes, content, im->in.file);
    return CTL_USAGE;
  }
  if (!content) {
    fprintf(stderr, "shard-ctl: %s: is empty, a volume cannot be\n", im->in.file);
    return CTL_FAILED;
  }
  spec->size_bytes = v->size_given ? v->size_bytes : whole;
  return CTL_OK;
}

/* A name of up to 255 bytes that ends with the whole of a character. */
static void temporary_name(const char *name, char text[SR_VOLUME_NAME_BYTES_MAX + 1]) {
  size_t n = strlen(name);
  if (n > 200)
    for (n = 200; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;) n--;
  snprintf(text, SR_VOLUME_NAME_BYTES_MAX + 1, "%.*s.import-%d", (int)n, name, (int)getpid());
}

static int import_new(struct import *im) {
  struct sr_port *port = im->s->port;
  struct sr_volume_options spec;
  struct sr_volume_info v;
  char temporary[SR_VOLUME_NAME_BYTES_MAX + 1];
  int status = new_spec(im, &spec);
  if (status != CTL_OK) return status;
  int r = sr_volume_stat(port, im->name, &v);
  if (r != -ENOENT) return ctl_volume_fail(im->name, r == 0 ? -EEXIST : r);
  temporary_name(im->name, temporary);
  r = sr_volume_create(port, temporary, &spec);
  if (r < 0) return ctl_volume_fail(im->name, r);
  im->target = temporary;
  status = fill_target(im);
  if (status == CTL_OK && (r = sr_volume_rename(port, temporary, im->name)) < 0)
    status = ctl_volume_fail(im->name, r);
  if (status == CTL_OK) return CTL_OK;
  r = sr_volume_remove(port, temporary);
  if (r < 0) ctl_volume_fail(temporary, r);
  return status;
}

/* ---- Onto a volume ------------------------------------------------------------------------------
 */

static int differs(void *arg, const struct sr_volume_range *range) {
  (void)arg, (void)range;
  return 1;
}

static int refuse(const struct import *im, const char *base, const char *what, const char *remedy) {
  fprintf(stderr, "shard-ctl: %s: %s %s: %s\n", im->name, what, base, remedy);
  return CTL_FAILED;
}

/* The volume must be what the stream begins at. */
static int check_base(const struct import *im, const char *base) {
  const struct stream_info *info = &im->reader.info;
  struct sr_port *port = im->s->port;
  struct sr_volume_info v, b;
  int r = sr_volume_stat(port, im->name, &v);
  if (r < 0) return ctl_volume_fail(im->name, r);
  r = sr_volume_stat(port, base, &b);
  if (r == -ENOENT)
    return refuse(im, base, "the stream begins at a snapshot that is not here:",
                  "if it has another name here, say --base=SNAP");
  if (r < 0) return ctl_volume_fail(base, r);
  if (v.snapshot) return ctl_volume_fail(im->name, -EROFS);
  if (!b.snapshot || b.size_bytes != info->from_size_bytes || b.block_bytes != info->block_bytes)
    return refuse(im, base, "what the stream begins at differs in size or block size from",
                  "another snapshot is meant; say --base=SNAP");
  r = v.size_bytes != b.size_bytes ? 1 : sr_volume_diff(port, base, im->name, differs, NULL);
  if (r == -EXDEV) return ctl_volume_fail(im->name, r);
  if (r < 0) return ctl_volume_fail(base, r);
  if (r > 0)
    return refuse(im, base, "it has changed since",
                  "volume rollback makes it that again and throws the changes away");
  return CTL_OK;
}

/* Nothing but what was in base is left. */
static int back_to(const struct import *im, const char *base, int status) {
  int r = sr_volume_rollback(im->s->port, im->name, base);
  if (r == 0) r = sr_flush(im->s->port);
  if (r == 0) return status;
  refuse(im, base, "has a part of the changes, and could not be rolled back to", "do so by hand");
  return CTL_FAILED;
}

static int import_onto(struct import *im) {
  struct sr_port *port = im->s->port;
  const struct stream_info *info = &im->reader.info;
  const char *base = im->o->volume.base ? im->o->volume.base : info->from;
  if (!info->incremental)
    return usage("--onto takes a stream of changes (export --since=SNAP); this one is of a whole "
                 "volume: import it as a new one");
  int status = check_base(im, base);
  if (status == CTL_OK && im->in.seekable) status = verify_stream(im);
  if (status != CTL_OK) return status;
  /* That it can be rolled back later on is tried while it is still the same. */
  int r = sr_volume_rollback(port, im->name, base);
  if (r < 0) return ctl_volume_fail(im->name, r);
  if (info->size_bytes != info->from_size_bytes) {
    r = sr_volume_resize(port, im->name, info->size_bytes, true);
    if (r < 0) return back_to(im, base, ctl_volume_fail(im->name, r));
  }
  im->target = im->name;
  status = fill_target(im);
  return status == CTL_OK ? CTL_OK : back_to(im, base, status);
}

/* ---- The command --------------------------------------------------------------------------------
 */

static int check_options(const struct ctl_options *o, const struct input *in) {
  const struct ctl_volume_options *v = &o->volume;
  if (v->onto && !in->stream) return usage("--onto takes a stream made with export --since=SNAP");
  if (v->onto && (v->size_given || v->striped || v->stripe_bytes || v->shard_given || v->block ||
                  v->integrity))
    return usage("--size, --block, --striped, --stripe, --shard, --integrity are for new volumes");
  if (v->base && !v->onto) return usage("--base goes with --onto");
  if (!in->stream && !in->seekable && !v->size_given)
    return usage("bytes from a pipe need --size=SIZE: else nobody knows whether all have come");
  return CTL_OK;
}

static int import_open(struct import *im) {
  int r = 0;
  if (im->in.stream)
    r = stream_read_begin(&im->reader, im->in.fd, im->in.early, im->in.early_bytes);
  if (r < 0) return stream_fail(im, r);
  if (im->in.stream && im->reader.info.incremental && !im->o->volume.onto) {
    fprintf(stderr, "shard-ctl: %s: holds the changes since %s: bring them --onto a volume\n",
            im->in.file, im->reader.info.from);
    return CTL_FAILED;
  }
  struct ctl_session s;
  int status = ctl_open(&s, im->o, false);
  if (status != CTL_OK) return status;
  im->s = &s;
  status = im->o->volume.onto ? import_onto(im) : import_new(im);
  if (status == CTL_OK) status = ctl_volume_done(im->o, s.port, im->name);
  return ctl_close(&s, status);
}

int ctl_volume_import(const struct ctl_options *o) {
  struct import im = {.o = o, .name = o->words[0]};
  int r = input_open(&im.in, o->words[1], o->volume.raw);
  int status = r < 0 ? input_fail(&im.in, r) : check_options(o, &im.in);
  if (status == CTL_OK && !im.in.stream && !im.in.seekable) im.in.size_bytes = o->volume.size_bytes;
  if (status == CTL_OK) status = import_open(&im);
  input_close(&im.in);
  return status;
}
