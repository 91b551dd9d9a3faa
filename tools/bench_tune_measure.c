/* bench_tune_measure.c - the measurements of shard-bench tune. Main thread, and a second one where
 * two loads run side by side.
 *
 * Rates are those of the raw loop: of the device and the kernel, without the store. Everything is
 * measured in rounds, one slice of each thing after the other, and the median of the rounds
 * counts: so a moment in which the machine did something else spoils one slice of many. */
#include "tools/bench_tune.h"
#include "tools/bench_random.h"
#include "tools/progress.h"
#include "tools/raw_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MIB           UINT64_C(1048576)
#define SCRATCH_MIN   (16 * MIB)
#define SCRATCH_MAX   (1024 * MIB)
#define ROUNDS        3
#define MIX_DEPTH     16u
#define SAMPLES_MAX   65536u
#define SLICES_A_LINE (TUNE_DEPTHS + TUNE_BATCHES + 2 * TUNE_SIZES + 3)
#define TIMED_READ    (-1) /* beside enum raw_write */
#define FLUSH_SLICES  3    /* slices that the timed writes, and as many that the timed reads get */

struct tune {
  const struct tune_options *o;
  int fd;
  char path[64]; /* by which others open it */
  char *block;   /* 1 MiB, aligned, of what does not compress */
  uint64_t bytes, random;
  double slice_s;
  struct progress progress;
  uint32_t done; /* slices */
};

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const char *what, int error, const char *remedy) {
  fprintf(stderr, "shard-bench tune: %s: %s%s%s\n", what, strerror(-error), remedy ? ": " : "",
          remedy ? remedy : "");
  return error;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts them. */
static double percentile(double *values, uint32_t count, double share) {
  if (count == 0) return 0;
  qsort(values, count, sizeof(*values), by_size);
  uint32_t at = (uint32_t)(share * count);
  return values[at < count ? at : count - 1];
}

static void step(struct tune *t) {
  progress_step(&t->progress, ++t->done, ROUNDS * SLICES_A_LINE + 2 * FLUSH_SLICES);
}

/* ---- The scratch file ------------------------------------------------------------------------ */

/* Without a name, so that nothing is left of it, whatever becomes of this process. */
static int open_scratch(struct tune *t) {
  const char *directory = t->o->directory;
  t->fd = open(directory, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
  if (t->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
    char name[4096];
    snprintf(name, sizeof(name), "%s/tune.XXXXXX", directory);
    t->fd = mkostemp(name, O_DIRECT | O_CLOEXEC);
    if (t->fd >= 0) unlink(name);
  }
  if (t->fd < 0)
    return fail(directory, -errno,
                errno == EINVAL ? "no direct I/O on this file system: there is no device to measure"
                : errno == ENOTDIR ? "a directory is needed, on the device that is to be measured"
                                   : NULL);
  snprintf(t->path, sizeof(t->path), "/proc/self/fd/%d", t->fd);
  return 0;
}

/* A quarter of what is free, within bounds. */
static int choose_bytes(struct tune *t) {
  struct statvfs v;
  if (fstatvfs(t->fd, &v) < 0) return fail(t->o->directory, -errno, NULL);
  uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
  t->bytes = t->o->scratch_bytes ? t->o->scratch_bytes : left / 4;
  if (t->bytes > SCRATCH_MAX && !t->o->scratch_bytes) t->bytes = SCRATCH_MAX;
  t->bytes = t->bytes / MIB * MIB;
  if (t->bytes >= SCRATCH_MIN && t->bytes <= left) return 0;
  fprintf(
      stderr,
      "shard-bench tune: %s: %llu MiB are free; a scratch file of %llu MiB at least is needed, "
      "and four times that if --size does not say how large: make room, or measure elsewhere on "
      "the same device with --output=FILE\n",
      t->o->directory, (unsigned long long)(left / MIB), (unsigned long long)(SCRATCH_MIN / MIB));
  return -ENOSPC;
}

/* Written whole before anything is measured, as a store's files are; as far as a sixth of the time
 * allows. */
static int write_scratch(struct tune *t) {
  double end = now_s() + t->o->runtime_s / 6;
  uint64_t at = 0;
  for (uint64_t *w = (uint64_t *)t->block; w < (uint64_t *)(t->block + MIB); w++)
    *w = bench_random(&t->random);
  progress_begin(&t->progress, "scratch file");
  int r = 0;
  while (r == 0 && at < t->bytes && (at < SCRATCH_MIN || now_s() < end)) {
    *(uint64_t *)t->block = at; /* no two alike, for devices that look */
    ssize_t n = pwrite(t->fd, t->block, MIB, (off_t)at);
    if (n != (ssize_t)MIB) r = n < 0 ? -errno : -ENOSPC;
    at += MIB;
    progress_step(&t->progress, at, t->bytes);
  }
  progress_end(&t->progress);
  if (r == 0 && fdatasync(t->fd) < 0) r = -errno;
  t->bytes = at;
  return r < 0 ? fail("scratch file", r, r == -ENOSPC ? "the file system is full" : NULL) : 0;
}

/* ---- Slices of the raw loop --------------------------------------------------------------------
 */

struct slice {
  struct tune_point point;
  uint64_t skip_bytes, span_bytes;
  double *rate, *cpu_ns; /* where the answers go */
};

struct side {
  struct tune *t;
  const struct slice *slice;
  pthread_t thread;
  int error;
};

static void *run_slice(void *arg) {
  struct side *side = arg;
  struct tune *t = side->t;
  const struct slice *s = side->slice;
  const char *path = t->path;
  char why[512] = "";
  struct raw_loop *loop = NULL;
  struct raw_loop_result result = {0};
  const struct raw_loop_options o = {.paths = &path,
                                     .path_count = 1,
                                     .skip_bytes = s->skip_bytes,
                                     .span_bytes = s->span_bytes ? s->span_bytes : t->bytes,
                                     .block_bytes = s->point.bytes,
                                     .depth = s->point.depth,
                                     .batch = s->point.batch,
                                     .write = s->point.write,
                                     .seed = t->o->seed + t->done};
  int r = raw_loop_create(&loop, &o, why, sizeof(why));
  if (r < 0) fprintf(stderr, "shard-bench tune: %s\n", why);
  if (r == 0) {
    r = raw_loop_run(loop, (uint64_t)(t->slice_s * 1e9), &result);
    if (r < 0) fail("scratch file", r, NULL);
  }
  raw_loop_destroy(loop);
  if (r == 0 && result.ops > 0) {
    *s->rate = (double)result.ops * 1e9 / (double)result.elapsed_ns;
    if (s->cpu_ns) *s->cpu_ns = (double)result.cpu_ns / (double)result.ops;
  }
  side->error = r < 0 ? r : result.ops > 0 ? 0 : fail("scratch file", -EIO, "nothing was done");
  return NULL;
}

static int one_slice(struct tune *t, const struct slice *s) {
  struct side side = {.t = t, .slice = s};
  run_slice(&side);
  step(t);
  return side.error;
}

static int two_slices(struct tune *t, const struct slice *a, const struct slice *b) {
  struct side x = {.t = t, .slice = a}, y = {.t = t, .slice = b};
  int r = -pthread_create(&y.thread, NULL, run_slice, &y);
  if (r < 0) return fail("thread", r, NULL);
  run_slice(&x);
  pthread_join(y.thread, NULL);
  step(t);
  return x.error ? x.error : y.error;
}

/* Of all rounds of a point. */
struct rounds {
  double rate[ROUNDS], cpu_ns[ROUNDS];
};

static int points_round(struct tune *t, const struct tune_point *points, uint32_t count,
                        struct rounds *all, uint32_t round) {
  int r = 0;
  for (uint32_t i = 0; r == 0 && i < count; i++) {
    struct slice s = {
        .point = points[i], .rate = &all[i].rate[round], .cpu_ns = &all[i].cpu_ns[round]};
    r = one_slice(t, &s);
  }
  return r;
}

static void take_medians(struct tune_point *points, uint32_t count, struct rounds *all) {
  for (uint32_t i = 0; i < count; i++) {
    points[i].rate = percentile(all[i].rate, ROUNDS, 0.5);
    points[i].cpu_ns = percentile(all[i].cpu_ns, ROUNDS, 0.5);
  }
}

/* Reads in the first half of the file, writes in the second. */
static int mix_round(struct tune *t, double mix[4][ROUNDS], uint32_t round) {
  uint64_t half = t->bytes / 2 / MIB * MIB;
  struct slice s[4];
  for (int i = 0; i < 4; i++)
    s[i] = (struct slice){.point = {4096, MIX_DEPTH, 1, i % 2, 0, 0},
                          .skip_bytes = i % 2 ? half : 0,
                          .span_bytes = half,
                          .rate = &mix[i][round]};
  int r = one_slice(t, &s[0]);
  if (r == 0) r = one_slice(t, &s[1]);
  return r == 0 ? two_slices(t, &s[2], &s[3]) : r;
}

static void fill_points(struct tune_data *d) {
  static const uint32_t batches[TUNE_BATCHES] = {1, 4, 16, 32};
  for (uint32_t i = 0; i < TUNE_DEPTHS; i++)
    d->depths[i] = (struct tune_point){4096, 1u << i, 1, false, 0, 0};
  for (uint32_t i = 0; i < TUNE_BATCHES; i++)
    d->batches[i] = (struct tune_point){4096, 64, batches[i], false, 0, 0};
  for (uint32_t i = 0; i < TUNE_SIZES; i++) { /* 4 KiB to 1 MiB */
    d->reads[i] = (struct tune_point){4096u << 2 * i, 1, 1, false, 0, 0};
    d->writes[i] = (struct tune_point){4096u << 2 * i, 1, 1, true, 0, 0};
  }
}

static int measure_rates(struct tune *t, struct tune_data *d) {
  struct rounds depths[TUNE_DEPTHS], batches[TUNE_BATCHES], reads[TUNE_SIZES], writes[TUNE_SIZES];
  double mix[4][ROUNDS];
  int r = 0;
  fill_points(d);
  for (uint32_t round = 0; r == 0 && round < ROUNDS; round++) {
    r = points_round(t, d->depths, TUNE_DEPTHS, depths, round);
    if (r == 0) r = points_round(t, d->batches, TUNE_BATCHES, batches, round);
    if (r == 0) r = points_round(t, d->reads, TUNE_SIZES, reads, round);
    if (r == 0) r = points_round(t, d->writes, TUNE_SIZES, writes, round);
    if (r == 0) r = mix_round(t, mix, round);
  }
  if (r < 0) return r;
  take_medians(d->depths, TUNE_DEPTHS, depths);
  take_medians(d->batches, TUNE_BATCHES, batches);
  take_medians(d->reads, TUNE_SIZES, reads);
  take_medians(d->writes, TUNE_SIZES, writes);
  d->read_alone = percentile(mix[0], ROUNDS, 0.5);
  d->write_alone = percentile(mix[1], ROUNDS, 0.5);
  d->read_beside = percentile(mix[2], ROUNDS, 0.5);
  d->write_beside = percentile(mix[3], ROUNDS, 0.5);
  return 0;
}

/* ---- Requests that are timed one by one
 * ---------------------------------------------------------- */

/* Reads as a thread does them by itself, writes as a store does them: through a ring. */
static int one_request(struct tune *t, struct raw_writer *w, int kind) {
  uint64_t at = bench_random(&t->random) % (t->bytes / 4096) * 4096;
  if (kind != TIMED_READ) return raw_writer_write(w, (enum raw_write)kind, t->block, at);
  ssize_t n = pread(t->fd, t->block, 4096, (off_t)at);
  return n == 4096 ? 0 : n < 0 ? -errno : -EIO;
}

/* The kinds in turn, until the time is over; at least 5 of each. Samples in nanoseconds. */
static int time_requests(struct tune *t, const int *kinds, uint32_t count, double *samples[],
                         uint32_t *n) {
  double end = now_s() + FLUSH_SLICES * t->slice_s;
  struct raw_writer *w = NULL;
  int r = kinds[0] == TIMED_READ ? 0 : raw_writer_create(&w, t->path);
  for (*n = 0; r == 0 && *n < SAMPLES_MAX && (*n < 5 || now_s() < end); ++*n)
    for (uint32_t k = 0; r == 0 && k < count; k++) {
      double start = now_s();
      r = one_request(t, w, kinds[k]);
      samples[k][*n] = (now_s() - start) * 1e9;
    }
  raw_writer_destroy(w);
  if (r < 0) return fail("scratch file", r, NULL);
  for (uint32_t i = 0; i < FLUSH_SLICES; i++) step(t);
  return 0;
}

static int measure_requests(struct tune *t, struct tune_data *d) {
  static const int read = TIMED_READ;
  static const int writes[] = {RAW_WRITE_PLAIN, RAW_WRITE_FLUSH, RAW_WRITE_DSYNC};
  double *all = malloc(3 * SAMPLES_MAX * sizeof(*all));
  if (!all) return fail("memory", -ENOMEM, NULL);
  double *samples[3] = {all, all + SAMPLES_MAX, all + 2 * SAMPLES_MAX};
  uint32_t n;
  int r = time_requests(t, &read, 1, samples, &n);
  if (r == 0) {
    d->read_p50_ns = percentile(samples[0], n, 0.5);
    d->read_p90_ns = percentile(samples[0], n, 0.9);
    d->read_p99_ns = percentile(samples[0], n, 0.99);
    r = time_requests(t, writes, 3, samples, &n);
  }
  if (r == 0) {
    d->write_ns = percentile(samples[0], n, 0.5);
    d->write_flush_ns = percentile(samples[1], n, 0.5);
    d->write_dsync_ns = percentile(samples[2], n, 0.5);
  }
  free(all);
  return r;
}

/* ---- What a wake-up costs
 * -------------------------------------------------------------------------- */

#define WAKES 1000

struct bell {
  int there, back;
};

static void *answer_bells(void *arg) {
  const struct bell *bell = arg;
  uint64_t v;
  for (int i = 0; i < WAKES; i++)
    if (read(bell->there, &v, sizeof(v)) != sizeof(v) || write(bell->back, &v, sizeof(v)) < 0)
      break;
  return NULL;
}

/* Two threads wake each other; half of a round is one wake-up. */
static int measure_wake(struct tune_data *d) {
  static double samples[WAKES];
  struct bell bell = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
  pthread_t thread;
  uint64_t v = 1;
  int r = bell.there < 0 || bell.back < 0 ? -errno
                                          : -pthread_create(&thread, NULL, answer_bells, &bell);
  if (r < 0) return fail("thread", r, NULL);
  for (int i = 0; r == 0 && i < WAKES; i++) {
    double start = now_s();
    v = 1;
    if (write(bell.there, &v, sizeof(v)) < 0 || read(bell.back, &v, sizeof(v)) < 0) r = -errno;
    samples[i] = (now_s() - start) * 1e9 / 2;
  }
  pthread_join(thread, NULL);
  close(bell.there);
  close(bell.back);
  d->wake_ns = percentile(samples, WAKES, 0.5);
  return r;
}

int tune_measure(const struct tune_options *o, struct tune_data *d, uint64_t *scratch_bytes) {
  struct tune t = {.o = o, .fd = -1, .random = bench_random_seed(o->seed)};
  *d = (struct tune_data){0};
  int r = open_scratch(&t);
  if (r == 0) r = choose_bytes(&t);
  if (r == 0 && !(t.block = aligned_alloc(4096, MIB))) r = fail("memory", -ENOMEM, NULL);
  if (r == 0) r = write_scratch(&t);
  if (r == 0) {
    t.slice_s = o->runtime_s * 5 / 6 / (ROUNDS * SLICES_A_LINE + 2 * FLUSH_SLICES);
    progress_begin(&t.progress, "tune");
    r = measure_wake(d);
    if (r == 0) r = measure_requests(&t, d);
    if (r == 0) r = measure_rates(&t, d);
    progress_end(&t.progress);
  }
  *scratch_bytes = t.bytes;
  free(t.block);
  if (t.fd >= 0) close(t.fd);
  return r;
}
