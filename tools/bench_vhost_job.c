/* bench_vhost_job.c - a job of --engine=vhost: `depth` requests on one queue, submitted again in
 * batches as they finish.
 *
 *   pending -> (aim) aimed -> (submit) in flight -> (reap, account) pending
 *
 * A job belongs to the thread that runs it. It polls for a moment before it sleeps, so that
 * the server's notifications are used as a guest would where the load is low. */
#include "tools/bench_vhost.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLLS_BEFORE_SLEEP 2000u
#define SLEEP_MS           1000
#define STUCK_SLEEPS       30u /* of SLEEP_MS with requests in flight: an error */
#define REAP_MAX           64u

static inline uint64_t pick(struct job *j, uint64_t count) {
  uint64_t x = j->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  j->random = x;
  return (uint64_t)(((__uint128_t)x * count) >> 64);
}

static void fail(struct job *j, int error, const char *what) {
  j->errors++;
  if (j->error == 0) {
    j->error = error;
    snprintf(j->what, sizeof(j->what), "%s", what);
  }
  *j->stop = true;
}

/* ---- Aiming --------------------------------------------------------------------------------- */

/* A random block, or the next one that nothing is in flight for. There are more blocks than
 * requests. */
static uint64_t random_block(struct job *j) {
  uint64_t block = pick(j, j->blocks);
  while (j->busy && j->busy[block])
    if (++block == j->blocks) block = 0;
  return block;
}

static uint64_t next_block(struct job *j) {
  uint64_t block = j->cursor++ % j->blocks;
  while (j->busy && j->busy[block]) block = j->cursor++ % j->blocks;
  return block;
}

static bool has_feature(const struct job *j, int bit) { return j->front->features >> bit & 1; }

static uint32_t write_op(struct job *j) {
  if (!j->mixes) return VFRONT_WRITE;
  uint64_t dice = pick(j, 100);
  if (dice < 5 && has_feature(j, BLK_F_WRITE_ZEROES)) return VFRONT_WRITE_ZEROES;
  if (dice >= 5 && dice < 7 && has_feature(j, BLK_F_DISCARD)) return VFRONT_DISCARD;
  if (dice == 7 && has_feature(j, BLK_F_FLUSH)) return VFRONT_FLUSH;
  return VFRONT_WRITE;
}

static uint32_t new_generation(struct job *j, const struct job_work *w) {
  if (w->request.op == VFRONT_WRITE_ZEROES) return GENERATION_ZEROS;
  if (w->request.op == VFRONT_DISCARD) return GENERATION_UNKNOWN; /* zeros or what was there */
  if (j->phase == JOB_FILL || j->o->rw == RW_WRITE) return GENERATION_FIRST;
  return ++j->generation;
}

/* Generation and content of what it writes. */
static void aim_content(struct job *j, struct job_work *w) {
  struct vfront_request *r = &w->request;
  j->busy[w->block] = 1;
  w->generation = j->holds[w->block];
  if (r->op == VFRONT_READ) return;
  w->generation = new_generation(j, w);
  if (r->op == VFRONT_WRITE) bench_fill(r->buf, w->generation, j->o->seed, r->offset, r->bytes);
}

static void aim_at(struct job *j, struct job_work *w, uint32_t op, uint64_t block) {
  struct vfront_request *r = &w->request;
  w->block = block;
  r->op = op;
  r->offset = (j->first_block + block) * j->o->block_bytes;
  r->bytes = (uint32_t)j->o->block_bytes;
  if (op == VFRONT_WRITE_ZEROES) r->unmap = pick(j, 2);
  if (j->holds && op != VFRONT_FLUSH) aim_content(j, w);
}

void job_aim_next(struct job *j, struct job_work *w) {
  int rw = j->o->rw;
  uint32_t op = VFRONT_READ;
  if (bench_is_write(rw) || (rw == RW_RANDRW && pick(j, 100) >= j->o->mix_read)) op = write_op(j);
  if (rw == RW_FLUSH) op = VFRONT_FLUSH;
  aim_at(j, w, op, bench_is_sequential(rw) ? next_block(j) : random_block(j));
}

static bool aim_load(struct job *j, struct job_work *w) {
  if (*j->stop) return false;
  if (j->aimed == 0 && bench_now_ns() >= j->deadline_ns) return false;
  job_aim_next(j, w);
  return true;
}

/* Each block once. */
static bool aim_all(struct job *j, struct job_work *w) {
  if (j->phase == JOB_CHECK)
    while (j->cursor < j->blocks && j->holds[j->cursor] == GENERATION_UNKNOWN) j->cursor++;
  if (*j->stop || j->cursor >= j->blocks) return false;
  aim_at(j, w, j->phase == JOB_FILL ? VFRONT_WRITE : VFRONT_READ, j->cursor++);
  return true;
}

static bool aim(struct job *j, struct vfront_request *r) {
  struct job_work *w = (struct job_work *)r;
  if (!(j->phase == JOB_LOAD ? aim_load(j, w) : aim_all(j, w))) return false;
  r->start_ns = 0;
  if (j->sample && --j->sample_left == 0) {
    j->sample_left = j->sample;
    r->start_ns = bench_now_ns();
  }
  return true;
}

/* ---- Accounting ----------------------------------------------------------------------------- */

static bool all_zeros(const char *buf, uint64_t bytes) {
  return buf[0] == 0 && memcmp(buf, buf + 1, bytes - 1) == 0;
}

/* Each sector of a block may be another's. */
static const char *what_it_holds(const struct job *j, const struct vfront_request *r, char *text,
                                 size_t bytes) {
  for (uint32_t at = 0; at < r->bytes; at += BLK_SECTOR_BYTES) {
    const char *sector = (const char *)r->buf + at;
    const char *more = at ? "from its middle on " : "";
    const struct job_work *w = (const struct job_work *)r;
    if (w->generation != GENERATION_ZEROS &&
        bench_matches(sector, w->generation, j->o->seed, r->offset + at, BLK_SECTOR_BYTES))
      continue;
    if (all_zeros(sector, BLK_SECTOR_BYTES)) {
      if (w->generation == GENERATION_ZEROS) continue;
      snprintf(text, bytes, "%szeros", more);
      return text;
    }
    for (uint32_t g = GENERATION_FIRST; g <= j->generation; g++)
      if (bench_matches(sector, g, j->o->seed, r->offset + at, BLK_SECTOR_BYTES)) {
        snprintf(text, bytes, "%sgeneration %u", more, g);
        return text;
      }
    snprintf(text, bytes, "%snothing of this run", more);
    return text;
  }
  return "it again";
}

static void compare(struct job *j, const struct job_work *w) {
  const struct vfront_request *r = &w->request;
  bool same = true;
  if (w->generation == GENERATION_UNKNOWN) return;
  if (w->generation == GENERATION_ZEROS)
    same = all_zeros(r->buf, r->bytes);
  else
    same = bench_matches(r->buf, w->generation, j->o->seed, r->offset, r->bytes);
  j->checked++;
  if (same) return;
  char what[160], found[64], wanted[32];
  j->mismatch = true;
  snprintf(wanted, sizeof(wanted), "generation %u", w->generation);
  snprintf(what, sizeof(what), "%llu bytes at %llu do not hold %s, but %s",
           (unsigned long long)r->bytes, (unsigned long long)r->offset,
           w->generation == GENERATION_ZEROS ? "zeros" : wanted,
           what_it_holds(j, r, found, sizeof(found)));
  fail(j, -EBADMSG, what);
}

static void account(struct job *j, struct job_work *w) {
  const struct vfront_request *r = &w->request;
  bool data = r->op == VFRONT_READ || r->op == VFRONT_WRITE;
  if (r->status != BLK_OK) {
    char what[160];
    snprintf(what, sizeof(what), "a request of type %u at %llu: status %d", r->op,
             (unsigned long long)r->offset, r->status);
    fail(j, r->status == BLK_IOERR ? -EIO : -EOPNOTSUPP, what);
    return;
  }
  if (j->holds && r->op != VFRONT_FLUSH) {
    if (r->op == VFRONT_READ)
      compare(j, w);
    else
      j->holds[w->block] = w->generation;
    j->busy[w->block] = 0;
  }
  if (j->phase != JOB_LOAD) return;
  bool apart = j->o->rw == RW_RANDRW && r->op != VFRONT_READ;
  j->ops++;
  if (data) j->bytes += r->bytes;
  if (!data) j->others++;
  if (apart) j->write_ops++;
  if (r->start_ns) {
    uint64_t now = bench_now_ns(), from = w->due_ns ? w->due_ns : r->start_ns;
    latency_add(apart ? &j->write_latency : &j->latency, now - from);
    if (w->due_ns) latency_add(apart ? &j->write_service : &j->service, now - r->start_ns);
    series_add(&j->series, j->elapsed_ns + now - j->run_ns, j->ops, now - from);
    if (j->live) live_add(j->live, 0, 0, now - from);
  }
}

/* ---- Running -------------------------------------------------------------------------------- */

static void note_queue_error(struct job *j, struct vfront_queue *q, int error) {
  fail(j, error, q->why[0] ? q->why : strerror(-error));
}

static int submit_batch(struct job *j, struct vfront_queue *q) {
  uint32_t max = j->pending_count < j->batch ? j->pending_count : j->batch;
  while (j->aimed < max && aim(j, j->pending[j->aimed])) j->aimed++;
  if (j->aimed == 0) return 0;
  int n = vfront_submit(q, j->pending, j->aimed);
  if (n < 0) return n;
  j->pending_count -= (uint32_t)n;
  j->aimed -= (uint32_t)n;
  memmove(j->pending, j->pending + n, j->pending_count * sizeof(struct vfront_request *));
  return n;
}

/* What is left over when the end has come stays in `pending`. */
static int submit_pending(struct job *j, struct vfront_queue *q) {
  int n;
  do n = submit_batch(j, q);
  while (n > 0 && j->pending_count >= (j->complete > j->batch ? 1 : j->batch));
  return n < 0 ? n : 0;
}

static int wait_some(struct job *j, struct vfront_queue *q, uint32_t *idle, uint32_t *sleeps) {
  if (++*idle < POLLS_BEFORE_SLEEP) {
    __builtin_ia32_pause();
    return 0;
  }
  int r = vfront_wait(q, SLEEP_MS);
  j->sleeps++;
  if (r == 1) *idle = *sleeps = 0;
  if (r == 0 && ++*sleeps == STUCK_SLEEPS) return -ETIMEDOUT;
  return r < 0 ? r : 0;
}

/* What has come since the last time. */
static void show(struct job *j) {
  live_add(j->live, j->ops - j->live_ops, j->bytes - j->live_bytes, 0);
  j->live_ops = j->ops;
  j->live_bytes = j->bytes;
}

void job_take(struct job *j, struct vfront_request **done, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    account(j, (struct job_work *)done[i]);
    j->pending[j->pending_count++] = done[i];
  }
  if (count > 0 && j->live) show(j);
}

static int turn(struct job *j, struct vfront_queue *q, uint32_t *idle, uint32_t *sleeps) {
  struct vfront_request *done[REAP_MAX];
  int n = vfront_reap(q, done, REAP_MAX);
  if (n < 0) return n;
  job_take(j, done, (uint32_t)n);
  if (n > 0) *idle = 0;
  if (j->pending_count >= j->complete || q->in_flight == 0) {
    int r = submit_pending(j, q);
    if (r < 0) return r;
  }
  return n > 0 || q->in_flight == 0 ? 0 : wait_some(j, q, idle, sleeps);
}

int job_run(struct job *j) {
  struct vfront_queue *q = &j->front->queues[j->index];
  uint32_t idle = 0, sleeps = 0;
  bool open = j->o->rate && j->phase == JOB_LOAD;
  j->run_ns = bench_now_ns();
  int r = open ? job_run_open(j, q) : submit_pending(j, q);
  while (r == 0 && q->in_flight > 0) r = turn(j, q, &idle, &sleeps);
  if (j->phase == JOB_LOAD) j->elapsed_ns += bench_now_ns() - j->run_ns;
  if (r < 0 && r != -ECONNRESET) note_queue_error(j, q, r);
  return r == -ECONNRESET ? r : j->error;
}

void job_begin(struct job *j, int phase, uint64_t deadline_ns) {
  j->phase = phase;
  j->deadline_ns = deadline_ns;
  if (phase != JOB_LOAD) j->cursor = 0;
  for (uint32_t i = 0; i < j->depth; i++) j->works[i].due_ns = 0;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static void set_up_blocks(struct job *j) {
  uint64_t bytes = j->front->size_bytes;
  if (j->o->size_given && j->o->size_bytes < bytes) bytes = j->o->size_bytes;
  uint64_t all = bytes / j->o->block_bytes, jobs = j->front->o.queues;
  bool apart = j->o->verify || bench_is_sequential(j->o->rw);
  j->first_block = apart ? all * j->index / jobs : 0;
  j->blocks = apart ? all * (j->index + 1) / jobs - j->first_block : all;
}

static int set_up_model(struct job *j) {
  j->holds = malloc(j->blocks * sizeof(*j->holds));
  j->busy = calloc(j->blocks, 1);
  if (!j->holds || !j->busy) return -ENOMEM;
  uint32_t at_first = bench_is_read(j->o->rw) && !j->o->create ? GENERATION_FIRST : 0;
  for (uint64_t i = 0; i < j->blocks; i++) j->holds[i] = at_first;
  return 0;
}

int job_init(struct job *j, const struct bench_options *o, struct vfront *front, uint32_t index,
             atomic_bool *stop) {
  uint64_t stride = round_up(o->block_bytes, 4096);
  char *buffers = front->buffers + index * o->iodepth * stride;
  *j = (struct job){
      .o = o,
      .front = front,
      .index = index,
      .depth = (uint32_t)o->iodepth,
      .batch = (uint32_t)o->batch,
      .complete = (uint32_t)o->fio.complete,
      .sample = o->sample,
      .sample_left = o->sample,
      .random = (o->seed + index + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1,
      .generation = GENERATION_FIRST,
      .mixes = o->verify && o->rw == RW_RANDRW,
      .stop = stop,
  };
  set_up_blocks(j);
  if (j->blocks < 2 * (uint64_t)j->depth) return -ENOSPC;
  j->works = calloc(j->depth, sizeof(*j->works));
  j->pending = calloc(j->depth, sizeof(struct vfront_request *));
  if (!j->works || !j->pending) return -ENOMEM;
  for (uint32_t i = 0; i < j->depth; i++) {
    j->works[i].request.buf = buffers + i * stride;
    j->works[i].request.pieces = (uint32_t)o->pieces;
    j->pending[j->pending_count++] = &j->works[i].request;
    bench_fill(j->works[i].request.buf, 0, o->seed, 0, o->block_bytes);
  }
  if (o->sample && !o->control_file && series_init(&j->series, (uint64_t)(o->runtime_s * 1e9)) < 0)
    return -ENOMEM;
  return o->verify ? set_up_model(j) : 0;
}

void job_finish(struct job *j) {
  series_finish(&j->series);
  free(j->works);
  free(j->pending);
  free(j->holds);
  free(j->busy);
}
