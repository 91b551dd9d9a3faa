/* settings.c - see settings.h. The thread that opens. */
#include "runtime/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Text ---------------------------------------------------------------------------------- */

struct word {
  const char *at;
  size_t bytes;
};

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static struct word trim(const char *at, size_t bytes) {
  while (bytes > 0 && is_blank(*at)) at++, bytes--;
  while (bytes > 0 && is_blank(at[bytes - 1])) bytes--;
  return (struct word){at, bytes};
}

static bool is_word(struct word w, const char *text) {
  return w.bytes == strlen(text) && memcmp(w.at, text, w.bytes) == 0;
}

/* Up to 24 characters of it that do no harm in a log. */
static const char *shown(struct word w, char buf[32]) {
  size_t n = 0;
  for (; n < w.bytes && n < 24; n++) buf[n] = w.at[n] > ' ' && w.at[n] < 127 ? w.at[n] : '?';
  snprintf(buf + n, 32 - n, "%s", n < w.bytes ? "..." : "");
  return buf;
}

static bool read_number(struct word w, uint32_t max, uint32_t *value) {
  uint64_t v = 0;
  if (w.bytes == 0 || w.bytes > 9) return false;
  for (size_t i = 0; i < w.bytes; i++) {
    if (w.at[i] < '0' || w.at[i] > '9') return false;
    v = v * 10 + (uint64_t)(w.at[i] - '0');
  }
  *value = (uint32_t)v;
  return v >= 1 && v <= max;
}

static bool read_method(struct word w, uint32_t *value) {
  *value = is_word(w, "fua")           ? FLUSH_METHOD_FUA
           : is_word(w, "write+flush") ? FLUSH_METHOD_AFTER
                                       : FLUSH_METHOD_DEFAULT;
  return *value != FLUSH_METHOD_DEFAULT;
}

/* NULL: it was good; else what is legal. */
static const char *take(struct settings *s, struct word key, struct word value) {
  uint32_t *to = is_word(key, "poll_us")       ? &s->poll_us
                 : is_word(key, "queue_depth") ? &s->queue_depth
                 : is_word(key, "flush")       ? &s->flush_method
                                               : NULL;
  if (!to) return "known are poll_us, queue_depth and flush";
  if (*to) return "it stands there twice";
  if (to == &s->poll_us)
    return read_number(value, 1000000, to) ? NULL : "legal: 1 to 1000000 microseconds";
  if (to == &s->queue_depth) return read_number(value, 4096, to) ? NULL : "legal: 1 to 4096";
  return read_method(value, to) ? NULL : "legal: fua, write+flush";
}

int settings_parse(struct settings *s, const char *text, size_t bytes, char *why,
                   size_t why_bytes) {
  struct settings found = {0};
  char a[32], b[32];
  *s = found;
  for (uint32_t line = 1; bytes > 0; line++) {
    const char *end = memchr(text, '\n', bytes);
    size_t n = end ? (size_t)(end - text) : bytes;
    struct word whole = trim(text, n);
    const char *equals = whole.bytes ? memchr(whole.at, '=', whole.bytes) : NULL;
    if (whole.bytes > 0 && *whole.at != '#') {
      struct word key = trim(whole.at, equals ? (size_t)(equals - whole.at) : whole.bytes);
      struct word value = {NULL, 0};
      if (equals) value = trim(equals + 1, whole.bytes - (size_t)(equals + 1 - whole.at));
      const char *bad =
          equals ? take(&found, key, value) : "a line is NAME = VALUE, or a # comment";
      if (bad) {
        snprintf(why, why_bytes, "line %u: %s%s%s: %s", line, shown(key, a), equals ? " = " : "",
                 equals ? shown(value, b) : "", bad);
        return -EINVAL;
      }
    }
    text += n + (end != NULL);
    bytes -= n + (end != NULL);
  }
  *s = found;
  return 0;
}

/* ---- The file ------------------------------------------------------------------------------ */

/* The one in a directory is no link: else who made the directory could have any file looked at. */
static int open_file(const char *where, const char *path) {
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  if (path) {
    int fd = open(path, flags);
    return fd < 0 ? -errno : fd;
  }
  int directory = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -ENOENT; /* devices, memory, or nothing: not our business */
  int fd = openat(directory, SETTINGS_NAME, flags | O_NOFOLLOW);
  int r = fd < 0 ? -errno : fd;
  close(directory);
  return r;
}

static int read_text(int fd, char *text, size_t max, size_t *bytes) {
  struct stat st;
  *bytes = 0;
  if (fstat(fd, &st) < 0) return -errno;
  if (!S_ISREG(st.st_mode)) return -EINVAL;
  while (*bytes < max) {
    ssize_t n = read(fd, text + *bytes, max - *bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) return 0;
    *bytes += (size_t)n;
  }
  return -EFBIG;
}

static void say_where(const char *where, const char *path, char *text, size_t bytes) {
  if (path)
    snprintf(text, bytes, "%s", path);
  else
    snprintf(text, bytes, "%s/" SETTINGS_NAME, where);
}

int settings_read(struct settings *s, const char *where, const char *path, char *note,
                  size_t note_bytes, const struct logger *logger) {
  char text[SETTINGS_BYTES_MAX + 1], why[192], place[512];
  size_t bytes = 0;
  *s = (struct settings){0};
  note[0] = 0;
  if (path && !*path) return 0;
  int fd = open_file(where, path);
  if (fd == -ENOENT && !path) return 0;
  say_where(where, path, place, sizeof place);
  int r = fd < 0 ? fd : read_text(fd, text, sizeof text, &bytes);
  if (fd >= 0) close(fd);
  if (r == -ENOENT) {
    log_line(logger, 0, "%s: there are no such settings", place);
    return r;
  }
  if (r == -ELOOP || r == -EINVAL)
    snprintf(why, sizeof why, "it is no regular file");
  else if (r == -EFBIG)
    snprintf(why, sizeof why, "it has more than %u bytes", SETTINGS_BYTES_MAX);
  else if (r < 0)
    snprintf(why, sizeof why, "%s", strerror(-r));
  else
    r = settings_parse(s, text, bytes, why, sizeof why);
  if (r < 0)
    log_line(logger, 1,
             "%s: %s; all of it is left alone, and the defaults hold: mend it, remove it, or run "
             "shard-bench tune",
             place, why);
  else
    snprintf(note, note_bytes, "%s", place);
  return 0;
}
