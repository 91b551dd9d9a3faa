/* bench_versus_peer.c - one run of one of two programs that are compared: starts it, keeps what it
 * prints in memory, and finds its figures there. What another program prints may be anything. */
#include "tools/bench_versus.h"
#include "tools/bench_stop.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/control/json.h"

#define OUTPUT_MAX ((size_t)64 << 20)
#define TAIL_LINES 12

/* ---- What it printed ----------------------------------------------------------------------- */

/* The whole file, with a zero byte at the end. */
static char *read_all(int fd, size_t *bytes) {
  off_t end = lseek(fd, 0, SEEK_END);
  size_t want = end < 0 ? 0 : (size_t)end, n = 0;
  if (want > OUTPUT_MAX) want = OUTPUT_MAX;
  char *text = malloc(want + 1);
  while (text && n < want) {
    ssize_t got = pread(fd, text + n, want - n, (off_t)n);
    if (got <= 0) break;
    n += (size_t)got;
  }
  if (text) text[n] = 0;
  *bytes = n;
  return text;
}

/* The last lines, indented; bytes that a terminal would act upon are shown as dots. */
static void show_end(const char *what, const char *text, size_t bytes) {
  size_t at = bytes;
  int lines = 0;
  while (at > 0 && (text[at - 1] != '\n' || at == bytes || ++lines < TAIL_LINES)) at--;
  if (bytes == 0) return;
  fprintf(stderr, "  the end of its %s:\n    ", what);
  for (; at < bytes; at++) {
    char c = text[at];
    if (c == '\n' && at + 1 < bytes)
      fputs("\n    ", stderr);
    else if (c != '\n')
      fputc((c >= 0 && c < ' ' && c != '\t') || c == 127 ? '.' : c, stderr);
  }
  fputc('\n', stderr);
}

/* ---- Figures ------------------------------------------------------------------------------- */

static double real(const struct js *node, const char *path) {
  const struct js *n = js_find(node, path);
  return js_is_number(n) ? js_number_of(n) : 0;
}

/* All jobs and sides together; latencies are those of the first side that has some. */
static bool figures_of_json(const struct js *root, struct versus_figures *f, char *why,
                            size_t why_bytes) {
  static const char *const sides[] = {"read", "write", "trim", "sync"};
  const struct js *jobs = js_find(root, "jobs");
  for (size_t i = 0; i < js_size(jobs); i++) {
    char path[64];
    snprintf(path, sizeof(path), "%zu/error", i);
    if (real(jobs, path) > 0) {
      snprintf(why, why_bytes, "its job %zu failed with error %.0f", i, real(jobs, path));
      return false;
    }
    for (int s = 0; s < 4; s++) {
      snprintf(path, sizeof(path), "%zu/%s", i, sides[s]);
      const struct js *side = js_find(jobs, path);
      const struct js *latency =
          js_find(side, "lat_ns/percentile") ? js_find(side, "lat_ns") : js_find(side, "clat_ns");
      f->iops += real(side, "iops");
      if (f->mean_ns > 0) continue;
      f->mean_ns = real(latency, "mean");
      f->p99_ns = real(latency, "percentile/99.000000");
    }
  }
  snprintf(why, why_bytes, "its JSON has no requests (jobs/0/read/iops and the like)");
  return f->iops > 0 && isfinite(f->iops);
}

/* fio may say something before and behind its JSON. */
static struct js *find_json(const char *text, size_t bytes) {
  const char *first = memchr(text, '{', bytes);
  size_t n = first ? bytes - (size_t)(first - text) : 0;
  char why[160];
  while (n > 0 && first[n - 1] != '}') n--;
  if (n == 0) return NULL;
  FILE *in = fmemopen((void *)(uintptr_t)first, n, "r");
  struct js *root = in ? js_read(in, why, sizeof(why)) : NULL;
  if (in) fclose(in);
  return root;
}

/* The last line is one number and nothing else. */
static bool last_number(const char *text, size_t bytes, double *number) {
  while (bytes > 0 && strchr(" \t\r\n", text[bytes - 1])) bytes--;
  size_t from = bytes;
  char word[64], *end;
  while (from > 0 && text[from - 1] != '\n') from--;
  if (from == bytes || bytes - from >= sizeof(word)) return false;
  snprintf(word, sizeof(word), "%.*s", (int)(bytes - from), text + from);
  *number = strtod(word, &end);
  return *end == 0 && isfinite(*number) && *number > 0;
}

static int read_figures(const char *name, const char *text, size_t bytes, struct versus_figures *f,
                        struct js **report) {
  char why[160];
  *f = (struct versus_figures){0};
  if (last_number(text, bytes, &f->iops)) return 0;
  struct js *root = find_json(text, bytes);
  if (!root)
    snprintf(why, sizeof(why),
             "it prints neither JSON (fio, shard-bench: --output-format=json) nor one number above "
             "0 in its last line");
  bool good = root && figures_of_json(root, f, why, sizeof(why));
  if (good && report) {
    js_free(*report);
    *report = root;
    return 0;
  }
  js_free(root);
  if (good) return 0;
  fprintf(stderr, "shard-bench: %s: %s\n", name, why);
  show_end("output", text, bytes);
  return -EIO;
}

/* ---- The run ------------------------------------------------------------------------------- */

static int start_and_wait(char *const *argv, int out, int err, int *status) {
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) return -errno;
  if (child == 0) {
    if (out >= 0) dup2(out, STDOUT_FILENO);
    if (err >= 0) dup2(err, STDERR_FILENO);
    execv(argv[0], argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  bench_stop_child(child);
  while (waitpid(child, status, 0) < 0)
    if (errno != EINTR) return -errno;
  bench_stop_child(0);
  return 0;
}

static int say_failure(const char *name, int status, int out, int err) {
  size_t bytes;
  if (WIFSIGNALED(status))
    fprintf(stderr, "shard-bench: %s: killed by signal %d\n", name, WTERMSIG(status));
  else
    fprintf(stderr, "shard-bench: %s: exit status %d\n", name, WEXITSTATUS(status));
  char *said = read_all(err, &bytes);
  if (said) show_end("error output", said, bytes);
  if (bytes == 0) {
    free(said);
    said = read_all(out, &bytes);
    if (said) show_end("output", said, bytes);
  }
  free(said);
  return -EIO;
}

int versus_run(const char *name, char *const *argv, int result_fd, struct versus_figures *figures,
               struct js **report) {
  int out = memfd_create("output", MFD_CLOEXEC), err = memfd_create("error", MFD_CLOEXEC);
  int status = 0, r = out < 0 || err < 0 ? -errno : start_and_wait(argv, out, err, &status);
  if (r < 0) fprintf(stderr, "shard-bench: %s: cannot be started: %s\n", name, strerror(-r));
  if (r == 0 && bench_stop_signal()) r = -EINTR;
  if (r == 0 && status != 0) r = say_failure(name, status, out, err);
  if (r == 0) {
    size_t bytes;
    char *text = read_all(result_fd >= 0 ? result_fd : out, &bytes);
    r = text ? read_figures(name, text, bytes, figures, report) : -ENOMEM;
    free(text);
  }
  if (out >= 0) close(out);
  if (err >= 0) close(err);
  return r;
}
