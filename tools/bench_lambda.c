/* bench_lambda.c - --workload=lambda: small virtual machines that come and go. Each is a clone of
 * one image; it reads what a boot reads (bench_models.h), writes a little, and is removed. So many
 * at once, each in a thread and with a port of its own; the main thread makes the image beforehand,
 * waits, and asks afterwards what space has come back.
 *
 *   lambda-base      a volume, filled once
 *   lambda-image     its snapshot, which all are clones of
 *   lambda-vm-N      a machine: clone, open, load, close, remove
 *
 * (With --reserve the first two are called hollow-lambda-...) The load of a machine is a script
 * whose operations are single requests; it ends when all of them are done. */
#include "tools/bench_crew.h"
#include "tools/bench_load.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB         UINT64_C(1048576)
#define GIB         (MIB << 10)
#define WRITE_BYTES 4096u
#define PATIENCE_NS UINT64_C(10000000000)

enum { MACHINE, CLONE, FIRST_BYTE, BOOT, READ, WRITE, REMOVE };

struct lambda {
  struct bench *b;
  const char *base, *image;
  uint64_t image_bytes, writes, deadline_ns;
  _Atomic uint64_t max;     /* machines; 0: as time goes */
  struct scan_range *reads; /* of each machine, in this order */
  uint64_t read_count;
  _Atomic uint64_t next; /* machine */
  _Atomic uint32_t running;
};
struct slot {
  struct load load; /* first: the script's functions find the slot by it */
  struct lambda *all;
  struct sr_port *port;
  struct sr_block *block;
  sem_t finished;
  pthread_t thread;
  uint64_t reads_left, start_ns, bytes, errors;
  bool mismatch;
  int error;
};

/* ---- A machine's requests
 * ------------------------------------------------------------------------
 */

static void begin(struct load *l, struct load_work *w) {
  const struct slot *s = (struct slot *)l;
  struct sr_request *r = &w->request;
  uint64_t at = l->cursor++;
  bool read = at < s->all->read_count;
  r->op = read ? SR_OP_READ : SR_OP_WRITE;
  r->flags = 0;
  r->block = s->block;
  r->buf = load_buffer(l, w, read ? 0 : 1);
  r->offset = read ? s->all->reads[at].offset
                   : load_pick(l, s->all->image_bytes / WRITE_BYTES) * WRITE_BYTES;
  r->bytes = read ? s->all->reads[at].bytes : WRITE_BYTES;
  w->number = 0; /* what is written is what is there already */
  w->want = (int64_t)r->bytes;
  if (!read) bench_stamp(r->buf, w->number, l->seed, r->offset, r->bytes);
}

static bool step(struct load *l, struct load_work *w, uint64_t now) {
  struct slot *s = (struct slot *)l;
  bool read = w->request.op == SR_OP_READ;
  load_class_add(l, read ? READ : WRITE, w->request.bytes, now, w->op_ns, w->sent_ns);
  if (!read) return false;
  load_compare(l, w, w->request.bytes);
  bool first = s->reads_left == s->all->read_count, last = --s->reads_left == 0;
  if (first) load_class_add(l, FIRST_BYTE, 0, bench_now_ns(), s->start_ns, s->start_ns);
  if (last) load_class_add(l, BOOT, 0, bench_now_ns(), s->start_ns, s->start_ns);
  return false;
}

const struct load_script bench_lambda_script = {
    .classes = {[MACHINE] = {"machine", SIDE_NONE},
                [CLONE] = {"clone", SIDE_NONE},
                [FIRST_BYTE] = {"first byte", SIDE_NONE},
                [BOOT] = {"boot", SIDE_NONE},
                [READ] = {"read", SIDE_READ},
                [WRITE] = {"write", SIDE_WRITE},
                [REMOVE] = {"remove", SIDE_NONE}},
    .buffers = 2,
    .begin = begin,
    .step = step,
};

/* ---- A machine's life ------------------------------------------------------------------------ */

/* On the cores in turn; what they share is read from any. */
static int clone_image(struct slot *s, uint64_t number, const char *name) {
  struct bench *b = s->all->b;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  uint32_t shard = b->core_shard[number % b->cores];
  v.integrity = bench_integrity(&b->o);
  v.on_shard = b->o.stripe_bytes == 0 && shard < b->shards;
  v.shard = v.on_shard ? shard : 0;
  int r = sr_volume_clone(s->port, s->all->image, name, &v);
  if (r != -ENOSPC || (r = sr_flush(s->port)) < 0) return r;
  return sr_volume_clone(s->port, s->all->image, name, &v); /* what was removed is free now */
}

static void run_load(struct slot *s) {
  struct load *l = &s->load;
  l->cursor = 0;
  l->left = s->all->read_count + s->all->writes;
  s->reads_left = s->all->read_count;
  load_run_here(l, s->port, 0, NULL, NULL);
  s->bytes += l->bytes;
  s->errors += l->errors;
  s->mismatch |= l->mismatch;
  if (s->error == 0) s->error = l->first_error;
}

static int run_machine(struct slot *s, uint64_t number) {
  struct load *l = &s->load;
  char name[64];
  snprintf(name, sizeof(name), "lambda-vm-%llu", (unsigned long long)number);
  s->start_ns = bench_now_ns();
  int r = clone_image(s, number, name);
  if (r < 0) return bench_fail(name, r);
  uint64_t cloned = bench_now_ns();
  load_class_add(l, CLONE, 0, cloned, s->start_ns, s->start_ns);
  r = sr_volume_open(s->port, name, NULL, &s->block);
  if (r == 0) run_load(s);
  uint64_t end = bench_now_ns();
  if (r == 0) r = sr_block_close(s->port, s->block);
  int removed = sr_volume_remove(s->port, name);
  if (r == 0) r = removed;
  uint64_t now = bench_now_ns();
  load_class_add(l, REMOVE, 0, now, end, end);
  if (r < 0) return bench_fail(name, r);
  if (s->error == 0 && !l->stopping)
    load_class_add(l, MACHINE, l->bytes, now, s->start_ns, s->start_ns);
  return s->error;
}

static void *slot_main(void *arg) {
  struct slot *s = arg;
  struct lambda *all = s->all;
  int r = 0;
  while (r == 0 && !bench_stop_signal()) {
    uint64_t number = atomic_fetch_add(&all->next, 1);
    if (all->max ? number >= all->max : bench_now_ns() >= all->deadline_ns) break;
    r = run_machine(s, number);
  }
  s->error = r;
  atomic_fetch_sub(&all->running, 1);
  return NULL;
}

/* ---- The image ------------------------------------------------------------------------------- */

static void nap(void) {
  const struct timespec moment = {.tv_nsec = 5000000};
  nanosleep(&moment, NULL);
}

/* Half of a shard, as it may lie on one. */
static int choose_size(struct bench *b) {
  struct sr_space s;
  int r = sr_space(b->port, &s);
  if (r < 0) return bench_fail("space", r);
  uint64_t half = s.total_bytes / 2 / (b->o.stripe_bytes ? 1 : b->shards) / MIB * MIB;
  if (half > 10 * GIB) half = 10 * GIB;
  if (!b->o.volume_size_given) b->o.volume_bytes = half > MIB ? half : MIB;
  return 0;
}

static int make_base(struct lambda *all) {
  struct bench *b = all->b;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *block;
  int r = sr_volume_remove(b->port, all->base); /* half of one, of a run that was killed */
  if (r < 0 && r != -ENOENT) return bench_fail(all->base, r);
  r = choose_size(b);
  v.size_bytes = b->o.volume_bytes;
  v.integrity = bench_integrity(&b->o);
  v.striped = b->o.stripe_bytes != 0;
  v.stripe_bytes = (uint32_t)b->o.stripe_bytes;
  if (r == 0 && (r = sr_volume_create(b->port, all->base, &v)) < 0) bench_fail(all->base, r);
  if (r < 0) return r;
  r = sr_volume_open(b->port, all->base, NULL, &block);
  if (r < 0) return bench_fail(all->base, r);
  r = bench_volume_fill(b, block, 0, b->o.reserve);
  int closed = sr_block_close(b->port, block);
  if (r == 0 && (r = closed) == 0) r = sr_volume_snapshot(b->port, all->base, all->image);
  b->populated = 1;
  return r < 0 ? bench_fail(all->image, r) : 0;
}

/* Machines of a run that was killed. */
static int remove_old(struct bench *b) {
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "lambda-vm-";
  struct sr_volume_info info;
  int r;
  while ((r = sr_volume_list(b->port, after, &info, 1)) == 1) {
    if (strncmp(info.name, "lambda-vm-", 10) != 0) return 0;
    snprintf(after, sizeof(after), "%s", info.name);
    if ((r = sr_volume_remove(b->port, after)) < 0) break;
  }
  return r < 0 ? bench_fail("machines of another run", r) : 0;
}

/* Makes it if it is not there, and waits until it has its checksums: that is no part of a boot. */
static int prepare(struct lambda *all) {
  struct bench *b = all->b;
  struct sr_volume_info info;
  int r = sr_volume_stat(b->port, all->image, &info);
  bool there = r == 0;
  if (there && ((b->o.volume_size_given && b->o.volume_bytes != info.size_bytes) ||
                b->o.stripe_bytes != info.stripe_bytes)) {
    fprintf(stderr,
            "shard-bench: the store has another %s, of %llu bytes; use the same --volume-size and "
            "--stripe, or --create --force\n",
            all->image, (unsigned long long)info.size_bytes);
    return -EINVAL;
  }
  r = there ? remove_old(b) : make_base(all);
  if (r == 0 && (r = sr_flush(b->port)) < 0) bench_fail("flush", r);
  uint64_t patience = bench_now_ns() + PATIENCE_NS;
  while (r == 0 && (r = sr_volume_stat(b->port, all->image, &info)) == 0 && info.unsummed_bytes &&
         bench_now_ns() < patience && !bench_stop_signal())
    nap();
  if (r < 0) return r;
  all->image_bytes = b->o.volume_bytes = info.size_bytes;
  int64_t n = boot_plan(all->image_bytes, b->o.seed, &all->reads);
  if (n < 0) return bench_fail("plan", (int)n);
  all->read_count = (uint64_t)n;
  return 0;
}

/* ---- The run --------------------------------------------------------------------------------- */

static int slot_start(struct slot *s, struct lambda *all, uint64_t index) {
  struct bench *b = all->b;
  struct load_config c = {.rw = RW_SPECIAL,
                          .depth = (uint32_t)b->o.iodepth,
                          .batch = (uint32_t)b->o.batch,
                          .request_bytes = BOOT_RUN_BYTES,
                          .script = &bench_lambda_script,
                          .count = 1,
                          .sample = b->o.sample,
                          .seed = b->o.seed + index,
                          .finished = &s->finished};
  s->all = all;
  sem_init(&s->finished, 0, 0);
  int r = sr_port_open(b->store, NULL, &s->port);
  if (r == 0) r = load_init(&s->load, b, &c);
  if (r < 0) return bench_fail("machines", r);
  atomic_fetch_add(&all->running, 1);
  r = -pthread_create(&s->thread, NULL, slot_main, s);
  if (r < 0) atomic_fetch_sub(&all->running, 1);
  return r < 0 ? bench_fail("threads", r) : 0;
}

static int slot_finish(struct slot *s, struct bench_result *res, bool started) {
  if (started) pthread_join(s->thread, NULL);
  int r = s->load.bench ? bench_classes_merge(res, &s->load) : 0;
  res->bytes += s->bytes;
  res->errors += s->errors;
  res->mismatch |= s->mismatch;
  if (res->error == 0) res->error = s->error;
  if (s->load.bench) load_finish(&s->load);
  sr_port_close(s->port);
  sem_destroy(&s->finished);
  return r;
}

static int run_slots(struct lambda *all, struct bench_result *res) {
  const struct bench_options *o = &all->b->o;
  struct slot *slots = calloc(o->numjobs, sizeof(*slots));
  struct live_line line;
  uint64_t started = 0, start = bench_now_ns(), ns = (uint64_t)(o->runtime_s * 1e9);
  uint64_t cpu = bench_process_cpu_ns();
  int r = slots ? 0 : bench_fail("machines", -ENOMEM);
  all->deadline_ns = start + ns;
  live_begin(&line, "lambda", NULL, 0);
  for (; r == 0 && started < o->numjobs; started += r == 0)
    r = slot_start(&slots[started], all, started);
  if (r < 0) all->max = 1; /* those that run end soon */
  while (atomic_load(&all->running) > 0) {
    uint64_t done = atomic_load(&all->next);
    live_step(&line, all->max ? done : bench_now_ns() - start, all->max ? all->max : ns);
    nap();
  }
  live_end(&line);
  res->elapsed_ns = bench_now_ns() - start;
  res->cpu_ns_process = bench_process_cpu_ns() - cpu;
  for (uint64_t i = 0; slots && i < o->numjobs; i++) {
    int e = slots[i].all ? slot_finish(&slots[i], res, i < started) : 0;
    if (r == 0) r = e;
  }
  free(slots);
  return r < 0 ? r : res->error;
}

/* What was removed comes back with the next flush, or in the background soon after it. */
static int settle(struct bench *b, const struct sr_space *before, struct sr_space *after) {
  uint64_t patience = bench_now_ns() + PATIENCE_NS;
  int r;
  do {
    r = sr_flush(b->port);
    if (r == 0) r = sr_space(b->port, after);
    if (r < 0) return bench_fail("space", r);
    if (after->volume_bytes <= before->volume_bytes && after->pending_bytes == 0) break;
    nap();
  } while (bench_now_ns() < patience && !bench_stop_signal());
  return 0;
}

static int measure(struct lambda *all, struct bench_result *res) {
  struct bench_figures *f = &res->figures;
  struct sr_space before, after;
  int r = sr_space(all->b->port, &before);
  if (r < 0) return bench_fail("space", r);
  r = run_slots(all, res);
  if (res->classes) res->ops = res->classes[MACHINE].ops;
  int e = settle(all->b, &before, &after);
  if (e < 0) return r < 0 ? r : e;
  bench_figure(f, "image", (double)all->image_bytes, "bytes", NULL);
  bench_figure(f, "reads of a boot", (double)all->read_count, "", "6.5 % of the image");
  bench_figure(f, "volumes before", (double)before.volume_bytes, "bytes", "with the image");
  bench_figure(f, "volumes after", (double)after.volume_bytes, "bytes", "all machines removed");
  bench_figure(f, "free before", (double)before.free_bytes, "bytes", NULL);
  bench_figure(f, "free after", (double)after.free_bytes, "bytes", NULL);
  return r;
}

static struct lambda lambda;

int bench_prepare_lambda(struct bench *b) {
  lambda = (struct lambda){.b = b,
                           .base = b->o.reserve ? "hollow-lambda-base" : "lambda-base",
                           .image = b->o.reserve ? "hollow-lambda-image" : "lambda-image",
                           .writes = b->o.boot_writes,
                           .max = b->o.clones};
  b->o.volumes = 1;
  return prepare(&lambda);
}

int bench_run_lambda(struct bench *b, struct bench_result *res) {
  res->direction = bench_direction(b->o.rw);
  int r = measure(&lambda, res);
  free(lambda.reads);
  lambda.reads = NULL;
  bench_classes_end(res);
  bench_rates(res);
  return r;
}
