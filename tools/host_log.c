/* host_log.c - see host_log.h. */
#include "tools/host_log.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 2048, BUFFER_BYTES = 1 << 18 };

/* The buffer is two halves: one is filled, the other written. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t more, empty;
  pthread_t thread;
  bool running, stopping;
  char halves[2][BUFFER_BYTES];
  int filling;
  size_t used;
  uint64_t dropped;
} log_state = {.lock = PTHREAD_MUTEX_INITIALIZER,
               .more = PTHREAD_COND_INITIALIZER,
               .empty = PTHREAD_COND_INITIALIZER};
static _Atomic enum host_log_level most = HOST_INFO;

/* ---- A line ---------------------------------------------------------------------------------- */

struct line {
  char text[LINE_BYTES];
  size_t used;
};

/* Leaves room for the newline; what is too long is cut. */
static void put_char(struct line *l, char c) {
  if (l->used < sizeof(l->text) - 1) l->text[l->used++] = c;
}
static void put_text(struct line *l, const char *text) {
  for (; *text; text++) put_char(l, *text);
}

static bool is_plain(const char *text) {
  if (!*text) return false;
  for (; *text; text++)
    if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 127 || strchr("\"=\\", *text))
      return false;
  return true;
}

/* As in C: nothing that somebody names can begin a line or a pair of its own. */
static void put_value(struct line *l, const char *text) {
  static const char hex[] = "0123456789abcdef";
  if (is_plain(text)) {
    put_text(l, text);
    return;
  }
  put_char(l, '"');
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') {
      put_char(l, '\\');
      put_char(l, (char)c);
    } else if (c < ' ' || c == 127) {
      put_text(l, "\\x");
      put_char(l, hex[c >> 4]);
      put_char(l, hex[c & 15]);
    } else {
      put_char(l, (char)c);
    }
  }
  put_char(l, '"');
}

static void put_time(struct line *l) {
  struct timespec now;
  struct tm tm;
  char text[32], tail[32];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &tm);
  strftime(text, sizeof(text), "time=%Y-%m-%dT%H:%M:%S", &tm);
  snprintf(tail, sizeof(tail), ".%03ldZ", now.tv_nsec / 1000000);
  put_text(l, text);
  put_text(l, tail);
}

static void put_pair(struct line *l, const struct log_pair *p) {
  char number[24];
  put_char(l, ' ');
  put_text(l, p->key);
  put_char(l, '=');
  if (p->text) {
    put_value(l, p->text);
    return;
  }
  snprintf(number, sizeof(number), "%llu", (unsigned long long)p->number);
  put_text(l, number);
}

static void make_line(struct line *l, enum host_log_level level, const char *event,
                      const struct log_pair *pairs) {
  static const char *const levels[] = {"error", "warning", "info", "debug"};
  l->used = 0;
  put_time(l);
  put_text(l, " level=");
  put_text(l, levels[level]);
  put_text(l, " event=");
  put_value(l, event);
  for (; pairs->key; pairs++) put_pair(l, pairs);
  l->text[l->used++] = '\n';
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void write_out(const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t n = write(STDERR_FILENO, bytes, count);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; /* nobody to tell */
    bytes += n;
    count -= (size_t)n;
  }
}

/* Under the lock. */
static void queue_line(const struct line *l) {
  if (log_state.used + l->used > BUFFER_BYTES) {
    log_state.dropped++;
    return;
  }
  memcpy(log_state.halves[log_state.filling] + log_state.used, l->text, l->used);
  log_state.used += l->used;
  pthread_cond_signal(&log_state.more);
}

void host_log_pairs(enum host_log_level level, const char *event, const struct log_pair *pairs) {
  struct line l;
  if (level > most) return;
  make_line(&l, level, event, pairs);
  pthread_mutex_lock(&log_state.lock);
  bool running = log_state.running;
  if (running) queue_line(&l);
  pthread_mutex_unlock(&log_state.lock);
  if (!running) write_out(l.text, l.used);
}

static void *write_lines(void *arg) {
  (void)arg;
  pthread_mutex_lock(&log_state.lock);
  while (!log_state.stopping || log_state.used > 0) {
    if (log_state.used == 0) {
      pthread_cond_wait(&log_state.more, &log_state.lock);
      continue;
    }
    int half = log_state.filling;
    size_t used = log_state.used;
    log_state.filling ^= 1;
    log_state.used = 0;
    if (log_state.dropped) {
      struct line l;
      make_line(&l, HOST_WARNING, "log_dropped",
                (const struct log_pair[]){LOG_NUMBER("lines", log_state.dropped), {0}});
      log_state.dropped = 0;
      queue_line(&l);
    }
    pthread_mutex_unlock(&log_state.lock);
    write_out(log_state.halves[half], used);
    pthread_mutex_lock(&log_state.lock);
  }
  log_state.running = false;
  pthread_cond_signal(&log_state.empty);
  pthread_mutex_unlock(&log_state.lock);
  return NULL;
}

void host_log_level(enum host_log_level level) { most = level; }

int host_log_start(void) {
  log_state.stopping = false;
  log_state.running = true;
  int r = pthread_create(&log_state.thread, NULL, write_lines, NULL);
  if (r) log_state.running = false;
  return -r;
}

void host_log_stop(void) {
  struct timespec until;
  int r = 0;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec++;
  pthread_mutex_lock(&log_state.lock);
  if (!log_state.running) {
    pthread_mutex_unlock(&log_state.lock);
    return;
  }
  log_state.stopping = true;
  pthread_cond_signal(&log_state.more);
  while (log_state.running && r == 0)
    r = pthread_cond_timedwait(&log_state.empty, &log_state.lock, &until);
  bool ended = !log_state.running;
  log_state.running = false;
  pthread_mutex_unlock(&log_state.lock);
  if (ended)
    pthread_join(log_state.thread, NULL);
  else
    pthread_detach(log_state.thread); /* its reader does not read: the process ends without it */
}
