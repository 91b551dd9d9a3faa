/* host_log.h - the daemon's log: one event a line on stderr, "key=value ..." with values quoted
 * where they need it.
 *
 * Any thread may log, cores too, so nothing here waits for who reads stderr: lines go into a buffer
 * that a thread of its own empties. When it is full lines are dropped, and the next one that fits
 * says how many. Before host_log_start() and after host_log_stop() lines are written at once. */
#ifndef TOOLS_HOST_LOG_H
#define TOOLS_HOST_LOG_H

#include <stdint.h>

enum host_log_level { HOST_ERROR = 0, HOST_WARNING = 1, HOST_INFO = 2, HOST_DEBUG = 3 };

struct log_pair {
  const char *key;
  const char *text; /* NULL: number counts */
  uint64_t number;
};
#define LOG_TEXT(key, text) ((struct log_pair){key, text, 0})
#define LOG_NUMBER(key, n)  ((struct log_pair){key, NULL, (uint64_t)(n)})
/* host_log(HOST_INFO, "attached", LOG_TEXT("disk", name), LOG_NUMBER("queues", 4)); at least one
 * pair. */
#define host_log(level, event, ...)                                                                \
  host_log_pairs(level, event, (const struct log_pair[]){__VA_ARGS__, {NULL, NULL, 0}})
void host_log_pairs(enum host_log_level level, const char *event, const struct log_pair *pairs);
/* An event that failed, with `error` (negative errno) in words. */
#define host_log_error(event, about, error)                                                        \
  host_log(HOST_ERROR, event, LOG_TEXT("about", about), LOG_TEXT("why", strerror(-(error))))

/* level: lines above it are left out. */
void host_log_level(enum host_log_level level);
int host_log_start(void);
/* Writes what is left, at most for a second. */
void host_log_stop(void);

#endif
