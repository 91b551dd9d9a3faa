/* ctl_blob.c - commands on single blobs. Blobs of any size pass through one buffer of 1 MiB. */
#include "tools/ctl.h"
#include "tools/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES  1048576u
#define LIST_ENTRIES 256

/* ---- ls, stat, rm ------------------------------------------------------------------------ */

static struct js *entry_json(struct sr_id id, uint64_t bytes) {
  char text[33];
  struct js *entry = js_object();
  sr_id_format(id, text);
  js_text(entry, "id", text);
  js_count(entry, "size_bytes", bytes);
  return entry;
}

static int list_all(const struct ctl_options *o, struct ctl_session *s) {
  struct sr_cursor cursor = {0};
  struct sr_entry entries[LIST_ENTRIES];
  struct js *root = o->json ? js_object() : NULL;
  struct js *blobs = root ? js_add(root, "blobs", js_array()) : NULL;
  int n;
  while ((n = sr_list(s->port, &cursor, entries, LIST_ENTRIES)) > 0)
    for (int i = 0; i < n; i++) {
      char text[33];
      sr_id_format(entries[i].id, text);
      if (blobs)
        js_add(blobs, NULL, entry_json(entries[i].id, entries[i].size_bytes));
      else
        printf("%s %" PRIu64 "\n", text, entries[i].size_bytes);
    }
  if (n == 0) return root ? ctl_print_json(root) : CTL_OK;
  if (root) js_free(root);
  return ctl_fail("ls", n);
}

int ctl_ls(const struct ctl_options *o) {
  struct ctl_session s;
  int status = ctl_open(&s, o, true);
  return status != CTL_OK ? status : ctl_close(&s, list_all(o, &s));
}

int ctl_stat(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_id id;
  uint64_t bytes = 0;
  int status = ctl_id(o, &id);
  if (status == CTL_OK) status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  int r = sr_stat(s.port, id, &bytes);
  if (r < 0)
    status = ctl_fail(o->words[0], r);
  else if (o->json)
    status = ctl_print_json(entry_json(id, bytes));
  else
    printf("%" PRIu64 "\n", bytes);
  return ctl_close(&s, status);
}

int ctl_rm(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_id id;
  int status = ctl_id(o, &id);
  if (status == CTL_OK) status = ctl_open(&s, o, false);
  if (status != CTL_OK) return status;
  int r = sr_delete(s.port, id, o->durable ? SR_DURABLE : 0);
  if (r < 0)
    status = ctl_fail(o->words[0], r);
  else if (o->json)
    status = ctl_print_json(entry_json(id, 0));
  return ctl_close(&s, status);
}

/* ---- put --------------------------------------------------------------------------------- */

static uint32_t put_flags(const struct ctl_options *o) {
  return (o->durable ? SR_DURABLE : 0u) | (o->if_absent ? SR_IF_ABSENT : 0u) |
         (o->no_checksum ? SR_NO_CHECKSUM : 0u);
}

/* Fills the buffer; less only at the end of the file. */
static int64_t read_whole(int fd, char *buf, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t n = read(fd, buf + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (int64_t)done;
}

/* The stream is committed only when the whole file was read. */
static int64_t put_stream(struct sr_port *port, struct sr_id id, uint32_t flags, int fd,
                          uint64_t hint, char *buf) {
  struct sr_stream *stream;
  struct progress p;
  uint64_t total = 0;
  int64_t n = 0;
  int r = sr_stream_begin(port, id, hint, flags, &stream);
  if (r < 0) return r;
  progress_begin(&p, "put");
  while (r == 0 && (n = read_whole(fd, buf, CHUNK_BYTES)) > 0) {
    r = sr_stream_append(port, stream, buf, (uint64_t)n);
    total += (uint64_t)n;
    progress_step(&p, total, hint);
  }
  progress_end(&p);
  if (r == 0 && n < 0) r = (int)n;
  if (r < 0) {
    sr_stream_abort(port, stream);
    return r;
  }
  r = sr_stream_commit(port, stream);
  return r < 0 ? r : (int64_t)total;
}

/* What fits the buffer is one put; anything longer is a stream. */
static int64_t put_from(struct sr_port *port, struct sr_id id, uint32_t flags, int fd) {
  struct stat st;
  char *buf = malloc(CHUNK_BYTES);
  if (!buf) return -ENOMEM;
  bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  int64_t n;
  if (regular && st.st_size <= (off_t)CHUNK_BYTES) {
    n = read_whole(fd, buf, CHUNK_BYTES);
    int r = n < 0 ? 0 : sr_put(port, id, buf, (uint64_t)n, flags);
    if (r < 0) n = r;
  } else {
    n = put_stream(port, id, flags, fd, regular ? (uint64_t)st.st_size : 0, buf);
  }
  free(buf);
  return n;
}

int ctl_put(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_id id;
  int fd = STDIN_FILENO;
  int status = ctl_id(o, &id);
  if (status != CTL_OK) return status;
  bool file = o->word_count > 1 && strcmp(o->words[1], "-") != 0;
  if (file && (fd = open(o->words[1], O_RDONLY | O_CLOEXEC)) < 0)
    return ctl_fail(o->words[1], -errno);
  status = ctl_open(&s, o, false);
  if (status == CTL_OK) {
    int64_t n = put_from(s.port, id, put_flags(o), fd);
    if (n == -EEXIST) {
      fprintf(stderr, "shard-ctl: %s exists already; leave --if-absent away to replace it\n",
              o->words[0]);
      status = CTL_FAILED;
    } else if (n < 0) {
      status = ctl_fail(o->words[0], n);
    }
    status = ctl_close(&s, status);
    if (status == CTL_OK && o->json) status = ctl_print_json(entry_json(id, (uint64_t)n));
  }
  if (file) close(fd);
  return status;
}

/* ---- get --------------------------------------------------------------------------------- */

static int write_whole(int fd, const char *buf, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, buf, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    buf += n;
    bytes -= (size_t)n;
  }
  return 0;
}

static int get_request(struct sr_port *port, struct sr_id id, char *buf, uint64_t at, uint64_t n,
                       uint32_t flags, int64_t *got) {
  static struct sr_request r;
  struct sr_request *one = &r, *done = NULL;
  r = (struct sr_request){.op = SR_OP_GET, .flags = flags, .id = id, .buf = buf};
  r.offset = at;
  r.bytes = n;
  int rc = sr_port_submit(port, &one, 1);
  if (rc < 0) return rc;
  while ((rc = sr_port_reap(port, &done, 1)) == 0) sr_port_wait(port, -1);
  *got = r.result;
  return rc < 0 ? rc : 0;
}

static int64_t get_to(const struct ctl_options *o, struct sr_port *port, struct sr_id id, int fd) {
  struct progress p;
  uint64_t size = 0, at = o->offset, done = 0;
  int64_t n = 1;
  char *buf = NULL;
  int r = sr_stat(port, id, &size);
  if (r < 0) return r;
  uint64_t left = at < size ? size - at : 0;
  if (left > o->bytes) left = o->bytes;
  if (posix_memalign((void **)&buf, 4096, CHUNK_BYTES)) return -ENOMEM;
  progress_begin(&p, "get");
  for (uint64_t all = left; r == 0 && left > 0 && n > 0; left -= (uint64_t)n) {
    uint64_t want = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    r = get_request(port, id, buf, at, want, o->no_checksum ? SR_NO_CHECKSUM : 0, &n);
    if (r == 0 && n < 0) r = (int)n;
    if (r == 0 && n > 0) r = write_whole(fd, buf, (size_t)n);
    if (r < 0) break;
    at += (uint64_t)n;
    done += (uint64_t)n;
    progress_step(&p, done, all);
  }
  progress_end(&p);
  free(buf);
  return r < 0 ? r : (int64_t)done;
}

int ctl_get(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_id id;
  int fd = STDOUT_FILENO;
  int status = ctl_id(o, &id);
  bool file = o->word_count > 1 && strcmp(o->words[1], "-") != 0;
  if (status == CTL_OK && o->json && !file) {
    fputs("shard-ctl: get --json needs a FILE: the blob itself would go to stdout, too\n", stderr);
    return CTL_USAGE;
  }
  if (status == CTL_OK) status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  uint64_t size;
  int r = sr_stat(s.port, id, &size); /* before a file is made for nothing */
  if (r < 0) return ctl_close(&s, ctl_fail(o->words[0], r));
  if (file && (fd = open(o->words[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
    return ctl_close(&s, ctl_fail(o->words[1], -errno));
  int64_t n = get_to(o, s.port, id, fd);
  if (file && close(fd) < 0 && n >= 0) n = -errno;
  if (n < 0) status = ctl_fail(o->words[0], n);
  if (n >= 0 && o->json) status = ctl_print_json(entry_json(id, (uint64_t)n));
  return ctl_close(&s, status);
}
