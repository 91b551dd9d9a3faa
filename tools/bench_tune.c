/* bench_tune.c - shard-bench tune: the command, what it prints, and the file of settings that it
 * writes. Main thread. */
#include "tools/bench_tune.h"
#include "tools/args.h"
#include "tools/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/control/json.h"

#define TOOL      "shard-bench tune"
#define MIB       UINT64_C(1048576)
#define BAD_MODEL 0.3 /* a line that is so far off says little */

struct command {
  struct tune_options o;
  const char *output;
  int format;
  bool dry_run, help;
};

static const char *const flush_names[] = {"fua", "write+flush"};

/* ---- The file of settings -------------------------------------------------------------------- */

static void write_settings(FILE *out, const struct tune_model *m,
                           const struct bench_environment *e) {
  char date[32];
  time_t now = time(NULL);
  struct tm tm;
  strftime(date, sizeof(date), "%Y-%m-%d", gmtime_r(&now, &tm));
  fprintf(
      out,
      "# Measured by shard-bench tune, %s: %s, %s.\n"
      "# Read when the store is opened; options that are given there come first. May be edited\n"
      "# or removed.\n"
      "poll_us = %u\nqueue_depth = %u\nflush = %s\n",
      date, e->device[0] ? e->device : "a device without a name", e->kernel, m->poll_us,
      m->queue_depth, flush_names[m->flush]);
}

/* Beside it first, then in its place: who opens the store meanwhile sees the old one or the new. */
static int replace_settings(const char *path, const struct tune_model *m,
                            const struct bench_environment *e) {
  char beside[4210];
  snprintf(beside, sizeof(beside), "%s.new", path);
  FILE *out = fopen(beside, "we");
  int r = out ? 0 : -errno;
  if (out) {
    write_settings(out, m, e);
    if (fflush(out) == EOF || fsync(fileno(out)) < 0) r = -errno;
    if (fclose(out) == EOF && r == 0) r = -errno;
  }
  if (r == 0 && rename(beside, path) < 0) r = -errno;
  if (r < 0) {
    unlink(beside);
    fprintf(stderr, TOOL ": %s: %s\n", path, strerror(-r));
  }
  return r;
}

/* ---- What was found ----------------------------------------------------------------------------
 */

static void add_points(struct js *to, const char *key, const struct tune_point *p, uint32_t count) {
  struct js *list = js_add(to, key, js_array());
  for (uint32_t i = 0; i < count; i++) {
    struct js *n = js_add(list, NULL, js_object());
    js_count(n, "bytes", p[i].bytes);
    js_count(n, "depth", p[i].depth);
    js_count(n, "batch", p[i].batch);
    js_real(n, "iops", p[i].rate);
    js_real(n, "cpu_ns", p[i].cpu_ns);
  }
}

static void add_line(struct js *to, const char *key, const struct tune_line *line) {
  struct js *n = js_add(to, key, js_object());
  js_real(n, "fixed_ns", line->fixed_ns);
  js_real(n, "per_byte_ns", line->per_byte_ns);
  js_real(n, "worst_error", line->worst);
}

static void add_measured(struct js *root, const struct tune_data *d, uint64_t scratch_bytes) {
  struct js *n = js_add(root, "measured", js_object());
  js_count(n, "scratch_bytes", scratch_bytes);
  add_points(n, "depths", d->depths, TUNE_DEPTHS);
  add_points(n, "batches", d->batches, TUNE_BATCHES);
  add_points(n, "reads", d->reads, TUNE_SIZES);
  add_points(n, "writes", d->writes, TUNE_SIZES);
  js_real(n, "read_p50_ns", d->read_p50_ns);
  js_real(n, "read_p90_ns", d->read_p90_ns);
  js_real(n, "read_p99_ns", d->read_p99_ns);
  js_real(n, "wake_ns", d->wake_ns);
  js_real(n, "write_ns", d->write_ns);
  js_real(n, "write_flush_ns", d->write_flush_ns);
  js_real(n, "write_dsync_ns", d->write_dsync_ns);
  js_real(n, "read_alone_iops", d->read_alone);
  js_real(n, "read_beside_iops", d->read_beside);
  js_real(n, "write_alone_iops", d->write_alone);
  js_real(n, "write_beside_iops", d->write_beside);
}

static int print_json(const struct command *c, const struct tune_data *d,
                      const struct tune_model *m, const struct bench_environment *e,
                      uint64_t scratch_bytes) {
  struct js *root = js_object();
  char version[64];
  snprintf(version, sizeof(version), "shard-bench %s", sr_version());
  js_text(root, "version", version);
  js_count(root, "timestamp", (uint64_t)time(NULL));
  js_text(root, "store", c->o.directory);
  js_text(root, "device", e->device);
  js_text(root, "kernel", e->kernel);
  js_text(root, "scheduler", e->scheduler);
  js_text(root, "write_cache", e->write_cache);
  js_text(root, "fua", e->fua);
  add_measured(root, d, scratch_bytes);
  struct js *n = js_add(root, "model", js_object());
  add_line(n, "read", &m->read);
  add_line(n, "write", &m->write);
  js_real(n, "iops_max", m->rate_max);
  js_count(n, "iops_depth", m->rate_depth);
  js_real(n, "knee_depth", m->knee);
  js_real(n, "flush_ns", m->flush_ns);
  js_real(n, "reads_kept", m->read_kept);
  js_real(n, "writes_kept", m->write_kept);
  n = js_add(root, "settings", js_object());
  js_count(n, "poll_us", m->poll_us);
  js_count(n, "queue_depth", m->queue_depth);
  js_text(n, "flush", flush_names[m->flush]);
  int r = js_write(root, stdout);
  js_free(root);
  return r;
}

static void print_line(const char *name, const struct tune_line *line) {
  printf("  %-16s %.1f us + %.3f us for each KiB, one at a time (worst error %.0f %%)%s\n", name,
         line->fixed_ns / 1e3, line->per_byte_ns * 1024 / 1e3, line->worst * 100,
         line->worst > BAD_MODEL ? ": no line describes it well" : "");
}

static void print_depths(const struct tune_data *d) {
  printf("  %-16s", "4 KiB reads/s");
  for (int i = 0; i < TUNE_DEPTHS; i++)
    printf("%s %u: %.0f", i ? "," : "", d->depths[i].depth, d->depths[i].rate);
  printf("\n  %-16s", "in batches of");
  for (int i = 0; i < TUNE_BATCHES; i++)
    printf("%s %u: %.0f (%.2f us of processor time each)", i ? "," : "", d->batches[i].batch,
           d->batches[i].rate, d->batches[i].cpu_ns / 1e3);
  putchar('\n');
}

static void print_text(const struct command *c, const struct tune_data *d,
                       const struct tune_model *m, const struct bench_environment *e,
                       uint64_t scratch_bytes) {
  printf("%s%s%s, %s; scratch file of %llu MiB, so caches of that size are in the figures\n",
         c->o.directory, e->device[0] ? " on " : "", e->device, e->kernel,
         (unsigned long long)(scratch_bytes / MIB));
  print_line("read", &m->read);
  print_line("write", &m->write);
  print_depths(d);
  printf("  %-16s %.0f 4 KiB reads/s, from depth %u on; requests wait for each other from depth "
         "%.1f on\n",
         "the most", m->rate_max, m->rate_depth, m->knee);
  printf("  %-16s 50 %% %.1f us, 90 %% %.1f us, 99 %% %.1f us; waking a thread %.1f us\n",
         "blocking read", d->read_p50_ns / 1e3, d->read_p90_ns / 1e3, d->read_p99_ns / 1e3,
         d->wake_ns / 1e3);
  printf("  %-16s 4 KiB written %.1f us, with a flush %.1f us, with RWF_DSYNC %.1f us\n", "flush",
         d->write_ns / 1e3, d->write_flush_ns / 1e3, d->write_dsync_ns / 1e3);
  printf("  %-16s beside each other reads keep %.0f %% of their rate, writes %.0f %%\n",
         "reads and writes", m->read_kept * 100, m->write_kept * 100);
  printf("  %-16s poll_us = %u, queue_depth = %u, flush = %s\n", "settings", m->poll_us,
         m->queue_depth, flush_names[m->flush]);
}

/* ---- The command
 * --------------------------------------------------------------------------------- */

static int take_options(struct command *c, int argc, char **argv) {
  const char *words[1];
  *c = (struct command){.o = {.runtime_s = 60, .seed = 1}};
  const struct arg table[] = {
      {"store", ARG_TEXT, &c->o.directory, .help = "the directory of a store"},
      {"runtime", ARG_SECONDS, &c->o.runtime_s, 0, 86400, 1, .help = "of all of it; default 60 s"},
      {"size", ARG_SIZE, &c->o.scratch_bytes, 16 * MIB, UINT64_C(1) << 40, MIB,
       .help = "of the scratch file; default: a quarter of what is free, up to 1 GiB"},
      {"output", ARG_TEXT, &c->output,
       .help = "write the settings to this file; default: settings, in the directory"},
      {"dry-run", ARG_FLAG, &c->dry_run, .help = "write no settings"},
      {"output-format", ARG_CHOICE, &c->format, .choices = "normal|json", .help = ""},
      {"seed", ARG_NUMBER, &c->o.seed, 0, UINT64_MAX, 1, .help = "of what is asked for"},
      {"help", ARG_FLAG, &c->help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  if (args_parse(TOOL, table, argc, argv, words, 0) < 0) return -EINVAL;
  if (!c->help && c->o.directory) return 0;
  if (!c->help) {
    fputs(TOOL ": --store is missing; legal: the directory of a store\n", stderr);
    return -EINVAL;
  }
  puts(TOOL
       " --store=DIR [options]: measures the device behind a store, prints what can be said of\n"
       "it, and writes settings that the store uses from its next open on.\n");
  args_help(table);
  return 1;
}

/* Whether settings in this directory will ever be read. */
static int check_place(const struct command *c) {
  char path[4200];
  struct stat st;
  if (stat(c->o.directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
    fprintf(stderr,
            TOOL ": %s: %s; legal: a directory. For a store on devices: a directory on the same "
                 "kind of device, and --output\n",
            c->o.directory, strerror(stat(c->o.directory, &st) < 0 ? errno : ENOTDIR));
    return -EINVAL;
  }
  snprintf(path, sizeof(path), "%.4096s/shard-0000", c->o.directory);
  if (c->output || c->dry_run || access(path, F_OK) == 0) return 0;
  fprintf(stderr,
          TOOL ": %s: there is no store to write settings for; make one first, or say "
               "where they go: --output=FILE\n",
          c->o.directory);
  return -EINVAL;
}

int tune_main(int argc, char **argv) {
  struct command c;
  static struct tune_data d;
  static struct bench b;
  struct tune_model m;
  struct bench_environment e;
  char path[4200];
  uint64_t scratch_bytes;
  int r = take_options(&c, argc, argv);
  if (r == 0) r = check_place(&c);
  if (r != 0) return r < 0 ? ARGS_USAGE : 0;
  r = tune_measure(&c.o, &d, &scratch_bytes);
  if (r < 0) return 1;
  tune_model_of(&m, &d);
  snprintf(b.o.where_text, sizeof(b.o.where_text), "%s", c.o.directory);
  bench_environment_fill(&e, &b);
  if (c.format == 1)
    r = print_json(&c, &d, &m, &e, scratch_bytes);
  else
    print_text(&c, &d, &m, &e, scratch_bytes);
  if (fflush(stdout) == EOF && r == 0) r = -EIO;
  if (c.dry_run) return r < 0;
  snprintf(path, sizeof(path), "%.4096s/settings", c.o.directory);
  int written = replace_settings(c.output ? c.output : path, &m, &e);
  return r < 0 || written < 0;
}
