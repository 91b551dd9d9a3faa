/* open_after_kill.c - how long opening takes with many blobs on one core: after kill -9 in the
 * middle of work, and after a clean close of the same store.
 *
 *   open_after_kill DIRECTORY [BLOBS]     default: 1 million blobs of 4 KiB
 *
 * The blobs are reserved, not written: opening does not read them. Half of them were put before
 * the last flush; what came after it is lost with the kill, as it must be. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/shardring.h"

#define BATCH  512
#define ROUNDS 7

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what, int r) {
  fprintf(stderr, "open_after_kill: %s: %s\n", what, strerror(-r));
  exit(1);
}

static void put_range(struct sr_port *p, uint64_t first, uint64_t count) {
  static struct sr_request requests[BATCH];
  struct sr_request *list[BATCH], *out[BATCH];
  for (uint64_t at = first; at < first + count;) {
    uint32_t n = 0, back = 0;
    for (; n < BATCH && at < first + count; n++, at++) {
      requests[n] = (struct sr_request){
          .op = SR_OP_PUT, .flags = SR_RESERVE, .id = {at * 2654435761u, at}, .bytes = 4096};
      list[n] = &requests[n];
    }
    if (sr_port_submit(p, list, n) != (int)n) fail("submit", -EAGAIN);
    while (back < n) {
      sr_port_wait(p, -1);
      back += (uint32_t)sr_port_reap(p, out, BATCH);
    }
    for (uint32_t i = 0; i < n; i++)
      if (requests[i].result) fail("put", (int)requests[i].result);
  }
}

static struct sr_store *open_store(const char *where, double *seconds) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  o.core_count = 1;
  o.no_background = true;
  o.lock_timeout_ms = 5000;
  double start = now_s();
  int r = sr_store_open(where, &o, &s);
  if (seconds) *seconds = now_s() - start;
  if (r) fail("open", r);
  return s;
}

static void work_until_killed(const char *where, uint64_t blobs) {
  struct sr_port *p;
  if (sr_port_open(open_store(where, NULL), NULL, &p)) fail("port", -EIO);
  put_range(p, 0, blobs);
  int r = sr_flush(p);
  if (r) fail("flush", r);
  put_range(p, blobs, blobs / 100);
  kill(getpid(), SIGKILL);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *what, double *s) {
  qsort(s, ROUNDS, sizeof *s, by_value);
  printf("%-22s median %.3f s (%.3f to %.3f, %d times)\n", what, s[ROUNDS / 2], s[0], s[ROUNDS - 1],
         ROUNDS);
}

static void check_count(struct sr_store *s, uint64_t at_least) {
  struct sr_port *p;
  if (sr_port_open(s, NULL, &p)) fail("port", -EIO);
  int64_t n = sr_count(p);
  if (n < (int64_t)at_least) fail("blobs are missing", n < 0 ? (int)n : -ENOENT);
  sr_port_close(p);
}

int main(int argc, char **argv) {
  double killed[ROUNDS], clean[ROUNDS];
  uint64_t blobs = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
  if (argc < 2 || blobs == 0) {
    fprintf(stderr, "usage: open_after_kill DIRECTORY [BLOBS]\n");
    return 2;
  }
  char where[4096], command[4200];
  snprintf(where, sizeof where, "%s/open-after-kill", argv[1]);
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  f.shards = 1;
  f.size_bytes = blobs * 4096 * 2 + (UINT64_C(512) << 20);
  f.force = true;
  for (int i = 0; i < ROUNDS; i++) {
    int r = sr_format(where, &f), status;
    if (r) fail("format", r);
    pid_t child = fork();
    if (child == 0) work_until_killed(where, blobs);
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) return 1;
    struct sr_store *s = open_store(where, &killed[i]);
    check_count(s, blobs);
    if ((r = sr_store_close(s))) fail("close", r);
    s = open_store(where, &clean[i]);
    check_count(s, blobs);
    sr_store_abandon(s);
  }
  printf("%llu blobs of 4 KiB, 1 shard, 1 core\n", (unsigned long long)blobs);
  report("open after kill -9", killed);
  report("open after close", clean);
  snprintf(command, sizeof command, "rm -rf '%s'", where);
  return system(command) != 0;
}
