/* fuzz_args.c - the command line: args_size(), args_parse() with an option of each kind, and all of
 * shard-bench's options. What is accepted is in the range that the table names; what is refused is
 * refused in one line.
 *
 * Input: words that end with a zero each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tools/args.h"
#include "tools/bench.h"
#include "tools/latency.h"

#define WORDS_MAX 32
#define WORDS_OUT 4

/* What the tools print is caught. */
struct caught {
  FILE *err, *out, *was_err, *was_out;
  char text[8192];
};
static void catch_begin(struct caught *c) {
  memset(c->text, 0, sizeof c->text);
  c->err = fmemopen(c->text, sizeof c->text - 1, "w");
  c->out = fopen("/dev/null", "w");
  check(c->err && c->out);
  c->was_err = stderr;
  c->was_out = stdout;
  stderr = c->err;
  stdout = c->out;
}
static void catch_end(struct caught *c) {
  stderr = c->was_err;
  stdout = c->was_out;
  fclose(c->err);
  fclose(c->out);
}

/* A refusal says what is wrong, once, and whose it is. */
static void check_message(const struct caught *c, int r, const char *tool) {
  size_t n = strlen(c->text);
  if (r >= 0) {
    check(n == 0);
  } else {
    check(r == -EINVAL);
    check(n > strlen(tool));
    check(strncmp(c->text, tool, strlen(tool)) == 0);
    if (n < sizeof c->text - 2) check(c->text[n - 1] == '\n');
  }
}

/* "64k" and the like, read a second time. */
static bool read_size(const char *text, uint64_t *bytes) {
  static const char units[] = "kmgt";
  size_t digits = strspn(text, "0123456789");
  __uint128_t v = 0;
  if (digits == 0) return false;
  for (; digits > 0; digits--, text++) {
    v = v * 10 + (unsigned)(*text - '0');
    if (v >> 64) return false;
  }
  if (*text) {
    char unit[2] = {(char)(*text | 0x20), 0};
    const char *at = *text & 0x40 ? strpbrk(units, unit) : NULL;
    if (!at || !unit[0]) return false;
    v <<= 10 * (at - units + 1);
    text++;
    if (strcasecmp(text, "ib") != 0 && strcasecmp(text, "b") != 0 && *text) return false;
  }
  *bytes = (uint64_t)v;
  return v >> 64 == 0;
}

static void try_size(const char *text) {
  uint64_t bytes = 4711, want;
  int r = args_size(text, &bytes);
  if (read_size(text, &want)) {
    check(r == 0);
    check(bytes == want);
  } else {
    check(r == -EINVAL);
    check(bytes == 4711);
  }
}

/* Percentiles of whatever was counted lie between the extremes, and do not fall. */
static void try_latency(char **words, int count) {
  static const double percents[] = {0, 1, 50, 90, 99, 99.9, 99.99, 100};
  struct latency *l = calloc(1, sizeof *l);
  check(l != NULL);
  for (int i = 0; i < count; i++) {
    uint64_t ns;
    if (args_size(words[i], &ns) == 0) latency_add(l, ns);
  }
  uint64_t before = 0;
  for (size_t i = 0; i < array_size(percents); i++) {
    uint64_t ns = latency_percentile_ns(l, percents[i]);
    check(ns >= before && ns <= l->max_ns);
    check(l->count == 0 || ns >= l->min_ns);
    before = ns;
  }
  check(l->count == 0 || before == l->max_ns);
  check(latency_stddev_ns(l) >= 0);
  free(l);
}

static void try_table(int argc, char **argv) {
  bool flag = false, given = false;
  const char *text = NULL, *words[WORDS_OUT + 1] = {0};
  uint64_t number = 5, bytes = 4096;
  double seconds = 1;
  int choice = 0;
  const struct arg table[] = {
      {"flag", ARG_FLAG, &flag, .help = ""},
      {"text", ARG_TEXT, &text, .help = ""},
      {"number", ARG_NUMBER, &number, 2, 1000, .help = ""},
      {"size", ARG_SIZE, &bytes, 512, UINT64_C(1) << 40, 512, .help = "", .given = &given},
      {"seconds", ARG_SECONDS, &seconds, 0, 86400, .help = ""},
      {"choice", ARG_CHOICE, &choice, .choices = "one|two|three", .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  struct caught c;
  catch_begin(&c);
  int r = args_parse("tool", table, argc, argv, words, WORDS_OUT);
  catch_end(&c);
  check_message(&c, r, "tool: ");
  check(number >= 2 && number <= 1000);
  check(bytes >= 512 && bytes <= UINT64_C(1) << 40 && bytes % 512 == 0);
  check(given || bytes == 4096);
  check(seconds >= 0.001 && seconds <= 86400);
  check(choice >= 0 && choice <= 2);
  check(!text || *text);
  check(r <= WORDS_OUT && !words[WORDS_OUT]);
  for (int i = 0; i < r; i++) check(words[i] != NULL);
}

static void try_bench(int argc, char **argv) {
  struct bench_options *o = calloc(1, sizeof *o);
  struct caught c;
  check(o != NULL);
  catch_begin(&c);
  int r = bench_options_parse(o, argc, argv);
  catch_end(&c);
  check(r == 0 || r == 1 || r == -EINVAL); /* 1: help or version */
  check_message(&c, r == 1 ? 0 : r, "shard-bench: ");
  if (r == 0 && !o->job_file) { /* of a job file nothing else is looked at */
    check((o->engine == ENGINE_VHOST ? o->socket : o->store) && o->where_text[0]);
    check(o->iodepth >= 1 && o->batch >= 1 && o->batch <= o->iodepth);
    check(o->blob_bytes >= 1 || o->engine == ENGINE_VHOST);
    check(o->block_bytes >= 512 && o->block_bytes % 512 == 0);
    check(o->numjobs >= 1 && o->numjobs <= 60);
    check(o->core_count <= SR_CORES_MAX);
    check(o->fio.complete >= 1 && o->fio.complete <= o->iodepth);
    check(!o->fio.split.count || o->fio.split.upto[o->fio.split.count - 1] == 100);
    check(!o->fio.split.count || o->block_bytes == o->fio.split.max);
    check(!o->fio.target_ns || (o->fio.share > 0 && o->fio.share <= 100 && o->sample == 1));
    check(o->runtime_s >= 0.001);
    check(bench_rw_name(o->rw) != NULL);
    check(bench_request_bytes(o) <= UINT64_C(1) << 30);
    for (uint64_t i = 0; o->sizes.kind && i < 100; i++) {
      uint64_t bytes = sizes_of(&o->sizes, i, o->seed);
      check(bytes >= 1 && bytes >= o->sizes.min && bytes <= o->sizes.max);
    }
  }
  sizes_finish(&o->sizes);
  free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char name[] = "fuzz";
  char *text = fuzz_string(data, size), *argv[WORDS_MAX + 2] = {name};
  int argc = 1;
  for (size_t at = 0; at < size && argc <= WORDS_MAX; at += strlen(text + at) + 1) {
    /* Each in memory of its own: a reader that goes too far is seen. */
    argv[argc++] = fuzz_string(text + at, strlen(text + at));
  }
  for (int i = 1; i < argc; i++) try_size(argv[i]);
  try_latency(argv + 1, argc - 1);
  try_table(argc, argv);
  try_bench(argc, argv);
  for (int i = 1; i < argc; i++) free(argv[i]);
  free(text);
  return 0;
}
