/* bench_jobs.c - the runs of a job file, one after the other, each in a process of its own: what
 * one leaves behind (memory, threads, a store that is damaged) is not the next one's.
 *
 * All options of all sections are looked at before the first run begins. Reports in JSON become
 * one: fio's keys at the top, a job for each section, and in it whatever else its report had. */
#include "tools/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/control/json.h"
#include "tools/args.h"
#include "tools/job_file.h"

static int check_options(const char *path, const struct job_file *file) {
  for (uint32_t s = 0; s < file->count; s++)
    for (uint32_t i = 0; i < file->sections[s].count; i++) {
      const struct job_option *o = &file->sections[s].options[i];
      char where[256];
      snprintf(where, sizeof(where), "shard-bench: %s, line %u, column %u", path, o->line,
               o->column);
      if (bench_option_check(where, o->text) < 0) return -EINVAL;
    }
  return 0;
}

/* ---- A run ----------------------------------------------------------------------------------- */

static char name_option[128], output_option[64];

/* The section's options, then those of the command line but for the file's name. */
static void make_argv(const struct bench_options *o, const struct job_section *s, int argc,
                      char **argv, int output_fd, bool json, char **to) {
  int n = 0;
  to[n++] = argv[0];
  snprintf(name_option, sizeof(name_option), "--name=%s", s->name);
  to[n++] = name_option;
  for (uint32_t i = 0; i < s->count; i++) to[n++] = s->options[i].text;
  for (int i = 1; i < argc; i++)
    if (argv[i] != o->job_file) to[n++] = argv[i];
  snprintf(output_option, sizeof(output_option), "--output=/proc/self/fd/%d", output_fd);
  to[n++] = output_option;
  to[n++] = json ? "--output-format=json" : "--output-format=normal";
  to[n] = NULL;
}

static int run_section(char **argv) {
  int status;
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) return -errno;
  if (child == 0) {
    execv("/proc/self/exe", argv);
    fprintf(stderr, "shard-bench: cannot start itself: %s\n", strerror(errno));
    _exit(127);
  }
  bench_stop_child(child);
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -errno;
  bench_stop_child(0);
  if (bench_stop_signal()) return -EINTR;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* ---- Reports --------------------------------------------------------------------------------- */

static int copy_text(int from, FILE *out) {
  char buf[4096];
  ssize_t n;
  while ((n = read(from, buf, sizeof(buf))) > 0)
    if (fwrite(buf, 1, (size_t)n, out) != (size_t)n) return -EIO;
  return n < 0 ? -errno : 0;
}

struct merge {
  struct js *root, *jobs, *job;
};
static int take_rest(void *arg, const char *key, const struct js *value) {
  const struct merge *m = arg;
  static const char *const tops[] = {"version", "fio version", "timestamp", "timestamp_ms", "time"};
  bool top = false;
  for (size_t i = 0; i < sizeof(tops) / sizeof(tops[0]); i++) top |= strcmp(key, tops[i]) == 0;
  if (strcmp(key, "jobs") != 0 && !top) js_add(m->job, key, js_copy(value));
  if (top && !js_member(m->root, key)) js_add(m->root, key, js_copy(value));
  return 0;
}

static int merge_json(int from, struct merge *m) {
  char why[160];
  FILE *in = fdopen(dup(from), "r");
  struct js *report = in ? js_read(in, why, sizeof(why)) : NULL;
  if (in) fclose(in);
  const struct js *jobs = report ? js_find(report, "jobs") : NULL, *job = js_find(jobs, "0");
  if (job) {
    m->job = js_add(m->jobs, NULL, js_copy(job));
    js_each(report, take_rest, m);
  }
  for (size_t i = 1; i < js_size(jobs); i++) { /* --group_reporting=0 */
    char place[24];
    snprintf(place, sizeof(place), "%zu", i);
    js_add(m->jobs, NULL, js_copy(js_find(jobs, place)));
  }
  js_free(report);
  return job ? 0 : -EIO;
}

static int report_of(int fd, bool json, struct merge *m, FILE *out) {
  if (lseek(fd, 0, SEEK_END) == 0) return 0; /* it has failed before it had anything to say */
  if (lseek(fd, 0, SEEK_SET) < 0) return -errno;
  if (json) return merge_json(fd, m);
  int r = copy_text(fd, out);
  fputc('\n', out);
  return fflush(out) == EOF ? -errno : r;
}

/* There is one report: in JSON if the command line or any section asks for that. */
static bool wants_json(const struct bench_options *o, const struct job_file *file) {
  for (uint32_t s = 0; s < file->count; s++)
    for (uint32_t i = 0; i < file->sections[s].count; i++)
      if (strcmp(file->sections[s].options[i].text, "--output-format=json") == 0) return true;
  return o->format == 1;
}

static int run_all(const struct bench_options *o, const struct job_file *file, int argc,
                   char **argv, FILE *out) {
  char **child = calloc((size_t)argc + JOB_OPTIONS_MAX + 5, sizeof(*child));
  struct merge m = {.root = js_object()};
  bool json = wants_json(o, file);
  int failed = child ? 0 : -ENOMEM;
  m.jobs = js_array();
  for (uint32_t i = 0; child && i < file->count && !bench_stop_signal(); i++) {
    int fd = memfd_create("report", 0); /* the child opens it by its number */
    if (fd < 0) {
      failed = -errno;
      break;
    }
    make_argv(o, &file->sections[i], argc, argv, fd, json, child);
    int r = run_section(child);
    if (r < 0 && r != -EINTR)
      fprintf(stderr, "shard-bench: section [%s] of line %u has failed\n", file->sections[i].name,
              file->sections[i].line);
    int reported = report_of(fd, json, &m, out);
    if (failed == 0) failed = r < 0 ? r : reported;
    close(fd);
  }
  js_add(m.root, "jobs", m.jobs);
  if (json && js_write(m.root, out) < 0 && failed == 0) failed = -EIO;
  js_free(m.root);
  free(child);
  return failed;
}

int bench_run_jobs(const struct bench_options *o, int argc, char **argv) {
  static struct job_file file;
  char why[200];
  FILE *in = fopen(o->job_file, "re");
  if (!in) {
    fprintf(stderr,
            "shard-bench: %s: %s; options begin with two dashes, anything else is a job file\n",
            o->job_file, strerror(errno));
    return ARGS_USAGE;
  }
  int r = job_file_read(&file, in, why, sizeof(why));
  fclose(in);
  if (r < 0) {
    fprintf(stderr, "shard-bench: %s: %s\n", o->job_file, r == -EINVAL ? why : strerror(-r));
    return ARGS_USAGE;
  }
  r = check_options(o->job_file, &file);
  FILE *out = r == 0 && o->output ? fopen(o->output, "we") : stdout;
  if (!out) r = bench_fail(o->output, -errno);
  bool usage = r < 0;
  if (r == 0) r = run_all(o, &file, argc, argv, out);
  if (out && out != stdout && fclose(out) == EOF && r == 0) r = bench_fail(o->output, -errno);
  job_file_free(&file);
  if (bench_stop_signal() && (r == 0 || r == -EINTR)) return 128 + bench_stop_signal();
  return usage ? ARGS_USAGE : r < 0;
}
