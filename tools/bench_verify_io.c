/* bench_verify_io.c - threads of --workload=verify: requests in flight, and checks of what they
 * read. A thread owns its port and works; disks are everybody's, each under its lock. */
#include "tools/bench_verify.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define THREADS_MAX 32u
#define MAGIC       UINT64_C(0x6b636f6c622d7273)
#define RANGE_MAX   2048u /* sectors of write-zeroes and discards */
#define BLOCK       8u    /* sectors of 4 KiB */
#define CROWDED     512u  /* sectors */

struct stamp {
  uint64_t magic, sector, generation, seed;
};

enum race { RACE_NONE, RACE_WRITE, RACE_WRITTEN, RACE_READ };

struct vwork {
  struct sr_request request;
  struct vwork *other; /* of a race */
  struct vdisk *disk;
  uint64_t first, count;
  uint32_t token, other_token;
  int race;
  struct iovec iov[3];
  char *buf;
};

struct vthread {
  struct verify *v;
  struct sr_port *port;
  pthread_t thread;
  struct vwork *works;
  char *memory;
  struct vwork **idle;
  struct sr_request **ready;
  uint32_t depth, idle_count, ready_count, in_flight;
  uint64_t random;
};

uint64_t verify_random(uint64_t *state, uint64_t below) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  *state = x;
  return (uint64_t)(((__uint128_t)x * below) >> 64);
}

void verify_fail(struct verify *v, int error) {
  int none = 0;
  atomic_compare_exchange_strong(&v->error, &none, error);
  atomic_store(&v->stop, true);
}

/* ---- Sectors ------------------------------------------------------------------------------ */

static void make_sector(char *to, uint64_t sector, uint32_t token, uint64_t seed) {
  uint64_t words[VSECTOR / 8];
  struct stamp s = {MAGIC, sector, token >> 1, seed};
  memcpy(words, &s, sizeof(s));
  for (uint32_t i = sizeof(s) / 8; i < VSECTOR / 8; i++)
    words[i] = (s.generation + i) * UINT64_C(0x9e3779b97f4a7c15) ^ sector;
  memcpy(to, words, VSECTOR);
}

static bool sector_is(const char *at, uint64_t sector, uint32_t token, uint64_t seed) {
  char want[VSECTOR];
  if (token & VZEROS)
    memset(want, 0, sizeof(want));
  else
    make_sector(want, sector, token, seed);
  return memcmp(at, want, VSECTOR) == 0;
}

/* What a sector holds if it is whole; 0 (no token is) if it is not. */
static uint32_t token_at(const char *at, uint64_t sector, uint64_t seed) {
  struct stamp s;
  memcpy(&s, at, sizeof(s));
  uint32_t token = s.magic == MAGIC ? (uint32_t)s.generation << 1 : VZEROS;
  return sector_is(at, sector, token, seed) ? token : 0;
}

static void describe(const char *title, const char *at, uint32_t token, uint64_t sector) {
  struct stamp s;
  if (!at && token & VZEROS) {
    fprintf(stderr, "  %s: zeros (since generation %u)\n", title, token >> 1);
  } else if (!at) {
    fprintf(stderr, "  %s: sector %llu, generation %u\n", title, (unsigned long long)sector,
            token >> 1);
  } else {
    static const char zeros[VSECTOR];
    memcpy(&s, at, sizeof(s));
    if (memcmp(at, zeros, VSECTOR) == 0)
      fprintf(stderr, "  %s: zeros\n", title);
    else if (s.magic != MAGIC)
      fprintf(stderr, "  %s: no stamp: %016llx %016llx\n", title, (unsigned long long)s.magic,
              (unsigned long long)s.sector);
    else
      fprintf(stderr, "  %s: sector %llu, generation %llu, seed %llu%s\n", title,
              (unsigned long long)s.sector, (unsigned long long)s.generation,
              (unsigned long long)s.seed,
              sector_is(at, s.sector, (uint32_t)s.generation << 1, s.seed) ? "" : ", torn");
  }
}

static void report_mismatch(struct verify *v, const struct vdisk *d, const char *at,
                            uint64_t sector, uint32_t token, const char *when) {
  if (atomic_load(&v->error)) return; /* the first one says most */
  verify_fail(v, -EBADMSG);
  fprintf(stderr, "shard-bench: verify: %s %s, offset %llu: not what was written (%s)\n",
          d->snapshot ? "snapshot" : "volume", d->name, (unsigned long long)sector * VSECTOR, when);
  describe("expected", NULL, token, sector);
  describe("found   ", at, 0, sector);
}

/* ---- Choice ------------------------------------------------------------------------------- */

static bool is_free(const struct vdisk *d, uint64_t first, uint64_t count) {
  for (uint64_t i = first; i < first + count; i++)
    if (d->busy[i / 64] >> i % 64 & 1) return false;
  return true;
}

static void mark(struct vdisk *d, uint64_t first, uint64_t count, bool busy) {
  for (uint64_t i = first; i < first + count; i++) {
    uint64_t bit = UINT64_C(1) << i % 64;
    d->busy[i / 64] = busy ? d->busy[i / 64] | bit : d->busy[i / 64] & ~bit;
  }
}

static void set_tokens(uint32_t *tokens, uint64_t first, uint64_t count, uint32_t token) {
  for (uint64_t i = first; i < first + count; i++) tokens[i] = token;
}

/* Sets what a finished or submitted request makes of its range. A discard leaves blocks alone of
 * which it has only a part. */
static void set_range(const struct vwork *w, uint32_t *tokens, uint32_t token) {
  uint64_t first = w->first, end = w->first + w->count;
  if (w->request.op == SR_OP_DISCARD) {
    first = (first + BLOCK - 1) / BLOCK * BLOCK;
    end = end / BLOCK * BLOCK;
  }
  if (first < end) set_tokens(tokens, first, end - first, token);
}

static uint32_t choose_op(struct vthread *t, int *race) {
  uint64_t dice = verify_random(&t->random, 100);
  *race = RACE_NONE;
  if (dice < 40) return SR_OP_READ;
  if (dice < 78) return SR_OP_WRITE;
  if (dice < 87) return SR_OP_WRITE_ZEROES;
  if (dice < 95) return SR_OP_DISCARD;
  if (dice < 97) return SR_OP_SYNC;
  *race = RACE_WRITE;
  return SR_OP_WRITE;
}

/* Half of them whole blocks, a few; a quarter single sectors; the others long ones. */
static void choose_range(struct vthread *t, const struct vdisk *d, struct vwork *w, uint32_t op) {
  uint64_t dice = verify_random(&t->random, 4), unit = d->align, count;
  bool range = op == SR_OP_WRITE_ZEROES || op == SR_OP_DISCARD;
  if (dice < 2) {
    unit = BLOCK;
    count = BLOCK * (1 + verify_random(&t->random, 4));
  } else if (dice == 2) {
    count = unit * (1 + verify_random(&t->random, 16 / unit));
  } else {
    count = unit * (1 + verify_random(&t->random, (range ? RANGE_MAX : VIO_SECTORS) / unit));
  }
  if (w->race) unit = count = BLOCK;
  if (count > d->sectors) count = d->sectors;
  w->count = count;
  /* A third of them where it is crowded: parts of one block, in flight beside each other. */
  uint64_t sectors = d->sectors;
  if (sectors > CROWDED && count <= CROWDED && verify_random(&t->random, 3) == 0) sectors = CROWDED;
  w->first = verify_random(&t->random, (sectors - count) / unit + 1) * unit;
}

/* One of the disks that are open, locked. */
static struct vdisk *choose_disk(struct vthread *t) {
  uint32_t first = (uint32_t)verify_random(&t->random, VDISKS_LIVE);
  for (uint32_t i = 0; i < VDISKS_LIVE; i++) {
    struct vdisk *d = &t->v->disks[(first + i) % VDISKS_LIVE];
    pthread_mutex_lock(&d->lock);
    if (d->open) return d;
    pthread_mutex_unlock(&d->lock);
  }
  return NULL;
}

/* ---- Requests ----------------------------------------------------------------------------- */

static uint32_t new_token(struct verify *v) {
  return (atomic_fetch_add(&v->generation, 1) + 1) << 1;
}

/* One buffer, or in three unequal pieces. */
static void set_buffer(struct vthread *t, struct vwork *w) {
  struct sr_request *r = &w->request;
  r->buf = w->buf;
  if (w->race || w->count < 3 || verify_random(&t->random, 5)) return;
  uint64_t one = w->count / 3 * VSECTOR - 100, two = w->count / 3 * VSECTOR + 36;
  w->iov[0] = (struct iovec){w->buf, one};
  w->iov[1] = (struct iovec){w->buf + one, two};
  w->iov[2] = (struct iovec){w->buf + one + two, r->bytes - one - two};
  r->buf = w->iov;
  r->iov_count = 3;
  r->flags |= SR_VECTORED;
}

static void set_request(struct vthread *t, struct vwork *w, uint32_t op) {
  bool write = op == SR_OP_WRITE, range = op == SR_OP_WRITE_ZEROES || op == SR_OP_DISCARD;
  w->request = (struct sr_request){
      .op = op, .block = w->disk->block, .offset = w->first * VSECTOR, .bytes = w->count * VSECTOR};
  w->token = range ? new_token(t->v) | VZEROS : write ? new_token(t->v) : 0;
  if (!range && op != SR_OP_SYNC) set_buffer(t, w);
  if ((write || op == SR_OP_WRITE_ZEROES) && verify_random(&t->random, 20) == 0)
    w->request.flags |= SR_DURABLE;
  for (uint64_t i = 0; write && i < w->count; i++)
    make_sector(w->buf + i * VSECTOR, w->first + i, w->token, t->v->seed);
  t->ready[t->ready_count++] = &w->request;
}

static void prepare_race(struct vthread *t, struct vwork *w) {
  struct vwork *o = t->idle[--t->idle_count];
  o->disk = w->disk;
  o->first = w->first;
  o->count = w->count;
  o->race = RACE_WRITE;
  o->other = w;
  w->other = o;
  w->disk->in_flight++;
  set_request(t, o, SR_OP_WRITE);
  set_tokens(w->disk->sent, w->first, w->count, o->token); /* the higher of the two */
}

/* Aims an idle work; false if all that it tried was busy. */
static bool prepare(struct vthread *t) {
  struct vwork *w = t->idle[t->idle_count - 1];
  uint32_t op = choose_op(t, &w->race);
  if (w->race && t->idle_count < 2) w->race = RACE_NONE;
  w->other = NULL;
  w->disk = choose_disk(t);
  if (!w->disk) return false;
  struct vdisk *d = w->disk;
  bool found = false;
  for (uint32_t tries = 0; !found && tries < 4; tries++) {
    choose_range(t, d, w, op);
    found = op == SR_OP_SYNC || is_free(d, w->first, w->count);
  }
  if (found) {
    t->idle_count--;
    if (op == SR_OP_SYNC) w->first = w->count = 0;
    mark(d, w->first, w->count, true);
    d->in_flight++;
    set_request(t, w, op);
    if (w->token) set_range(w, d->sent, w->token);
    if (w->race) prepare_race(t, w);
  }
  pthread_mutex_unlock(&d->lock);
  return found;
}

static void count_op(struct verify *v, uint32_t op) {
  atomic_fetch_add_explicit(&v->ops, 1, memory_order_relaxed);
  _Atomic uint64_t *which = op == SR_OP_READ           ? &v->reads
                            : op == SR_OP_WRITE        ? &v->writes
                            : op == SR_OP_WRITE_ZEROES ? &v->zeroes
                            : op == SR_OP_DISCARD      ? &v->discards
                                                       : &v->syncs;
  atomic_fetch_add_explicit(which, 1, memory_order_relaxed);
}

static void check_read(struct verify *v, const struct vwork *w) {
  for (uint64_t i = 0; i < w->count; i++) {
    uint32_t token = w->disk->done[w->first + i]; /* nothing writes there: the range is ours */
    const char *at = w->buf + i * VSECTOR;
    if (!sector_is(at, w->first + i, token, v->seed)) {
      report_mismatch(v, w->disk, at, w->first + i, token, "read beside other requests");
      return;
    }
  }
}

/* One of the two, and all of the block. */
static uint32_t check_race(struct verify *v, const struct vwork *w) {
  uint32_t token = token_at(w->buf, w->first, v->seed);
  if (token != w->token && token != w->other_token) token = w->token;
  for (uint64_t i = 0; i < w->count; i++) {
    const char *at = w->buf + i * VSECTOR;
    if (sector_is(at, w->first + i, token, v->seed)) continue;
    report_mismatch(v, w->disk, at, w->first + i, token, "after two writes of a block at once");
    fprintf(stderr, "  the writes were generations %u and %u\n", w->token >> 1,
            w->other_token >> 1);
    break;
  }
  atomic_fetch_add(&v->races, 1);
  return token;
}

static void release(struct vthread *t, struct vwork *w, uint32_t token) {
  struct vdisk *d = w->disk;
  pthread_mutex_lock(&d->lock);
  if (token) set_range(w, d->done, token);
  mark(d, w->first, w->count, false);
  d->in_flight--;
  pthread_mutex_unlock(&d->lock);
  t->idle[t->idle_count++] = w;
}

/* The first of the two waits for the second, which then reads. */
static void race_written(struct vthread *t, struct vwork *w) {
  struct vwork *o = w->other;
  w->race = RACE_WRITTEN;
  if (o->race != RACE_WRITTEN) return;
  pthread_mutex_lock(&w->disk->lock);
  w->disk->in_flight--;
  pthread_mutex_unlock(&w->disk->lock);
  t->idle[t->idle_count++] = o;
  w->other_token = o->token;
  w->race = RACE_READ;
  w->request.op = SR_OP_READ;
  w->request.flags = 0;
  w->request.buf = w->buf;
  t->ready[t->ready_count++] = &w->request;
}

static void finished(struct vthread *t, struct vwork *w) {
  const struct sr_request *r = &w->request;
  int64_t want = r->op == SR_OP_SYNC ? 0 : (int64_t)r->bytes;
  t->in_flight--;
  if (r->result != want) {
    if (!atomic_load(&t->v->error))
      fprintf(stderr, "shard-bench: verify: %s: op %u at %llu of %llu bytes: %s\n", w->disk->name,
              r->op, (unsigned long long)r->offset, (unsigned long long)r->bytes,
              r->result < 0 ? strerror((int)-r->result) : "short");
    verify_fail(t->v, r->result < 0 ? (int)r->result : -EIO);
  }
  count_op(t->v, r->op);
  if (w->race == RACE_WRITE) {
    race_written(t, w);
    return;
  }
  uint32_t token = w->token;
  if (!atomic_load(&t->v->error)) {
    if (w->race == RACE_READ)
      token = check_race(t->v, w);
    else if (r->op == SR_OP_READ)
      check_read(t->v, w);
  }
  release(t, w, token);
}

/* ---- Threads ------------------------------------------------------------------------------ */

static void submit(struct vthread *t) {
  if (t->ready_count == 0) return;
  int r = sr_port_submit(t->port, t->ready, t->ready_count);
  if (r < 0 && r != -EAGAIN) {
    bench_fail("submit", r);
    verify_fail(t->v, r);
    t->ready_count = 0; /* the end: what is marked stays so */
    return;
  }
  uint32_t n = r > 0 ? (uint32_t)r : 0;
  t->in_flight += n;
  t->ready_count -= n;
  memmove(t->ready, t->ready + n, t->ready_count * sizeof(*t->ready));
}

static void *thread_main(void *arg) {
  struct vthread *t = arg;
  struct sr_request *done[64];
  struct verify *v = t->v;
  for (;;) {
    bool stop = atomic_load(&v->stop) || (v->ops_max && atomic_load(&v->ops) >= v->ops_max);
    while (!stop && t->idle_count > 1 && prepare(t)) continue;
    submit(t);
    if (stop && t->in_flight == 0 && t->ready_count == 0) break;
    int n = sr_port_reap(t->port, done, 64);
    for (int i = 0; i < n; i++) finished(t, (struct vwork *)done[i]);
    if (n == 0 && t->in_flight) sr_port_wait(t->port, 1000000);
    if (n == 0 && !t->in_flight) sched_yield();
  }
  if (v->ops_max && !atomic_load(&v->error)) atomic_store(&v->stop, true);
  return NULL;
}

static void thread_finish(struct vthread *t) {
  sr_port_close(t->port);
  if (t->memory) sr_buffer_free(t->v->b->store, t->memory);
  free(t->works);
  free(t->idle);
  free(t->ready);
}

static int thread_init(struct vthread *t, struct verify *v, uint32_t index) {
  uint32_t depth = (uint32_t)v->b->o.iodepth, stride = VIO_SECTORS * VSECTOR;
  if (depth < 2) depth = 2; /* a race is two */
  *t = (struct vthread){.v = v, .depth = depth, .idle_count = depth};
  t->random = verify_random(&v->random, UINT64_MAX) + index + 1;
  if (posix_memalign((void **)&t->works, 64, depth * sizeof(*t->works))) t->works = NULL;
  t->idle = calloc(depth, sizeof(*t->idle));
  t->ready = calloc(depth, sizeof(*t->ready));
  t->memory = sr_buffer_alloc(v->b->store, (size_t)depth * stride, true);
  if (!t->works || !t->idle || !t->ready || !t->memory) return -ENOMEM;
  memset(t->works, 0, depth * sizeof(*t->works));
  for (uint32_t i = 0; i < depth; i++) {
    t->works[i].buf = t->memory + (size_t)i * stride;
    t->idle[i] = &t->works[i];
  }
  struct sr_port_options p = SR_PORT_OPTIONS_INIT;
  p.depth = depth + 8 > 1024 ? depth + 8 : 1024;
  return sr_port_open(v->b->store, &p, &t->port);
}

int verify_io_run(struct verify *v, uint32_t threads, uint64_t duration_ns,
                  void (*step)(struct verify *v)) {
  static struct vthread t[THREADS_MAX];
  uint64_t end = bench_now_ns() + duration_ns;
  uint32_t made = 0, started = 0;
  int r = 0;
  if (threads > THREADS_MAX) threads = THREADS_MAX;
  atomic_store(&v->stop, false);
  while (r == 0 && made < threads) {
    r = thread_init(&t[made], v, made);
    made++;
  }
  if (r < 0) bench_fail("threads", r);
  for (; r == 0 && started < threads; started += r == 0)
    r = -pthread_create(&t[started].thread, NULL, thread_main, &t[started]);
  while (r == 0 && !atomic_load(&v->stop) && (v->ops_max || bench_now_ns() < end)) step(v);
  atomic_store(&v->stop, true);
  for (uint32_t i = 0; i < started; i++) pthread_join(t[i].thread, NULL);
  for (uint32_t i = 0; i < made; i++) thread_finish(&t[i]);
  return r < 0 ? r : atomic_load(&v->error);
}

/* ---- A whole disk --------------------------------------------------------------------------- */

/* What a snapshot under load may hold: what had completed, what was in flight before it began, and
 * what was submitted until it was there. */
static bool is_possible(uint32_t found, uint32_t done, uint32_t before, uint32_t after) {
  if (found == 0) return false;
  if (found & VZEROS) return done & VZEROS || after & VZEROS || before != after;
  return found >> 1 >= done >> 1 && found >> 1 <= after >> 1;
}

static void check_sector(struct verify *v, struct vdisk *d, const char *at, uint64_t sector,
                         const struct vload *load) {
  uint32_t done = d->done[sector], after = load ? load->after[sector] : done;
  if (after == done) {
    if (!sector_is(at, sector, done, v->seed))
      report_mismatch(v, d, at, sector, done, "read of the whole");
    return;
  }
  uint32_t found = token_at(at, sector, v->seed);
  if (is_possible(found, done, load->before[sector], after)) {
    d->done[sector] = found;
    return;
  }
  report_mismatch(v, d, at, sector, done, "taken under load");
  describe("or up to", NULL, after, sector);
}

int verify_disk(struct verify *v, struct vdisk *d, const struct vload *load) {
  uint64_t step = 2048;
  char *buf = sr_buffer_alloc(v->b->store, step * VSECTOR, false);
  if (!buf) return bench_fail("buffers", -ENOMEM);
  for (uint64_t at = 0; at < d->sectors && !atomic_load(&v->error); at += step) {
    uint64_t n = d->sectors - at < step ? d->sectors - at : step;
    int64_t r = sr_block_read(v->b->port, d->block, buf, at * VSECTOR, n * VSECTOR);
    if (r != (int64_t)(n * VSECTOR)) {
      bench_fail(d->name, r < 0 ? (int)r : -EIO);
      verify_fail(v, r < 0 ? (int)r : -EIO);
      break;
    }
    for (uint64_t i = 0; i < n; i++) check_sector(v, d, buf + i * VSECTOR, at + i, load);
  }
  sr_buffer_free(v->b->store, buf);
  v->checks++;
  return atomic_load(&v->error);
}
