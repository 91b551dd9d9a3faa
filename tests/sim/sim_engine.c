/* sim_engine.c - the device engine on simulated disks: any order, any delay, faults; see
 * sim_disk.h. One thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/log.h"
#include "tests/sim/sim_disk_internal.h"

static struct sim_device *device_of(const struct device *d) {
  return (struct sim_device *)((uintptr_t)d - offsetof(struct sim_device, device));
}

static int sim_create(struct device **out, const struct device_options *options) {
  struct sim_device *d = calloc(1, sizeof *d);
  if (!d) return -ENOMEM;
  d->device.ops = &device_sim;
  d->io = options->clock.arg;
  d->next = d->io->devices;
  d->io->devices = d;
  *out = &d->device;
  return 0;
}

static void sim_destroy(struct device *device) {
  struct sim_device *d = device_of(device), **at = &d->io->devices;
  check(d->count == 0);
  while (*at != d) at = &(*at)->next;
  *at = d->next;
  free(d->requests);
  free(d);
}

static int sim_attach(struct device *device, uint16_t slot, struct backing *b) {
  check(slot < SIM_DISKS_MAX);
  device_of(device)->files[slot] = disk_of(b);
  return 0;
}

static int sim_register(struct device *d, uint32_t index, void *base, size_t bytes) {
  (void)d, (void)index, (void)base, (void)bytes;
  return 0;
}
static void sim_unregister(struct device *d, uint32_t index) { (void)d, (void)index; }

static void moment(struct sim_io *io) {
  if (io->moment) io->moment(io, io->moment_arg);
}

static void check_memory(const struct io *io) {
  for (uint32_t at = 0, row; at < io->bytes; at += row) {
    uintptr_t memory = (uintptr_t)io_memory(io, at, &row);
    check(row && is_aligned(memory | row, BLOCK_BYTES));
  }
}

static void sim_submit(struct device *device, struct io *io) {
  struct sim_device *d = device_of(device);
  struct sim_io *s = d->io;
  check(d->files[io->file] != NULL);
  if (io->op != IO_FLUSH) {
    check(is_aligned(io->offset | io->bytes, BLOCK_BYTES));
    check(io->bytes - 1 < IO_BYTES_MAX && (io->op == IO_READ || io->op == IO_WRITE));
    check_memory(io);
    s->vectored += (io->flags & IO_VECTORED) != 0;
  }
  if (d->count == d->room) {
    d->room = d->room ? 2 * d->room : 64;
    d->requests = realloc(d->requests, d->room * sizeof *d->requests);
    check(d->requests != NULL);
  }
  uint64_t delay = 0;
  if (!s->calm) /* most are quick, some take very long */
    delay = random_up_to(&s->random, 1 + (s->delay_ns_max >> random_up_to(&s->random, 8)));
  if (io->op == IO_READ && s->slow_reads) delay *= s->slow_reads;
  d->requests[d->count++] =
      (struct request){.io = io, .due_ns = s->now_ns + delay, .mark = s->order};
  if (io->op == IO_WRITE) moment(s);
}

static bool fault(struct sim_io *s, const struct io *io, uint32_t chance) {
  uint64_t block = io->offset >> BLOCK_SHIFT;
  if (s->faults.to_block && (block < s->faults.from_block || block >= s->faults.to_block))
    return false;
  if (!random_chance(&s->random, chance)) return false;
  s->faults.injected++;
  return true;
}

/* A root, or the frame at the very end of a log that alone says up to where all was durable, that
 * is lost as a whole looks as if it had never been: nobody can tell, and docs/reliability.md says
 * so. */
static bool is_last_word(const struct sim_io *s, const struct io *io) {
  struct frame f;
  const char *what;
  if (io->flags & IO_FUA) return true;
  return !(io->flags & IO_VECTORED) && !frame_decode_header(&f, io->buf, &what) &&
         f.durable > s->told[f.shard % SIM_SHARDS_MAX];
}

static void note_told(struct sim_io *s, const struct io *io) {
  struct frame f;
  const char *what;
  if (io->flags & IO_VECTORED || frame_decode_header(&f, io->buf, &what)) return;
  uint64_t *told = &s->told[f.shard % SIM_SHARDS_MAX];
  if (f.durable > *told) s->told_faults = s->faults.injected;
  *told = max_u64(*told, f.durable);
}

/* One wrong bit in a commit at the very end is seen; in another frame it looks like a torn write.
 */
static bool may_flip(const struct sim_io *s, const struct io *io) {
  struct frame f;
  const char *what;
  if (io->flags & IO_FUA || !is_last_word(s, io)) return true;
  return s->faults.injected == s->told_faults && !frame_decode_header(&f, io->buf, &what) &&
         f.flags & FRAME_COMMIT;
}

/* Preferably one that means something: zeros are mostly padding. */
static uint32_t choose_bit(struct sim_io *s, const char *block) {
  uint32_t bit = 0;
  for (int tries = 0; tries < 30; tries++) {
    bit = (uint32_t)random_up_to(&s->random, BLOCK_BYTES * 8);
    if (block[bit / 8]) break;
  }
  return bit;
}

static void write_blocks(struct sim_disk *d, const struct io *io, uint64_t to, bool torn) {
  struct sim_io *s = d->io;
  bool flip = may_flip(s, io) && fault(s, io, s->faults.bit_flip);
  bool zero = !is_last_word(s, io) && fault(s, io, s->faults.zero_block);
  uint64_t count = io->bytes >> BLOCK_SHIFT, order = s->order++;
  uint64_t flipped = flip ? random_up_to(&s->random, count) : count;
  uint64_t zeroed = zero ? random_up_to(&s->random, count) : count;
  for (uint64_t i = 0; i < count; i++) {
    struct page *p = i == zeroed ? NULL : page_of(block_of(io, i));
    if (torn) {
      struct page *whole = p;
      p = page_merge(d->now[to + i], whole, (uint8_t)random_next(&s->random));
      page_unref(whole);
    }
    disk_store(d, to + i, p, io->flags & IO_FUA, order);
    if (i == flipped && to + i < d->blocks)
      sim_disk_flip(d, to + i, choose_bit(s, block_of(io, i)));
  }
}

static int32_t do_write(struct sim_disk *d, const struct io *io) {
  struct sim_io *s = d->io;
  uint64_t block = io->offset >> BLOCK_SHIFT;
  if (fault(s, io, s->faults.no_space)) return -ENOSPC;
  if (fault(s, io, s->faults.write_error)) {
    write_blocks(d, io, block, true);
    return -EIO;
  }
  if (!is_last_word(s, io) && fault(s, io, s->faults.lose_write)) return 0;
  if (!is_last_word(s, io) && fault(s, io, s->faults.misdirect))
    block = random_up_to(&s->random, d->blocks);
  write_blocks(d, io, block, false);
  note_told(s, io);
  return 0;
}

/* One that was on its way at the same time as one that failed fails, too. */
static int32_t do_flush(struct sim_disk *d, const struct io *io, uint64_t mark) {
  struct sim_io *s = d->io;
  if (mark >= d->failed_order && !fault(s, io, s->faults.flush_error)) {
    disk_flush_cached(d, mark);
    return 0;
  }
  return disk_flush_lost(d, mark);
}

static int32_t take_effect(struct sim_device *dev, const struct request *r) {
  struct sim_io *s = dev->io;
  struct io *io = r->io;
  struct sim_disk *d = dev->files[io->file];
  if (s->faults.gone) return -EIO;
  if (io->op == IO_FLUSH) {
    s->flushes++;
    return do_flush(d, io, r->mark);
  }
  uint64_t block = io->offset >> BLOCK_SHIFT, count = io->bytes >> BLOCK_SHIFT;
  if (block > d->blocks || count > d->blocks - block) return -EIO;
  if (io->op == IO_WRITE) {
    s->writes++;
    return do_write(d, io);
  }
  s->reads++;
  if (fault(s, io, s->faults.read_error)) return -EIO;
  for (uint64_t i = 0; i < count; i++) page_read(d->now[block + i], block_of(io, i));
  return 0;
}

/* One that is due, by chance if there are more; NULL: none. */
static struct io *next_due(struct sim_device *d) {
  struct sim_io *s = d->io;
  uint32_t from = s->calm ? 0 : (uint32_t)random_up_to(&s->random, d->count);
  for (uint32_t k = 0; k < d->count; k++) {
    uint32_t i = (from + k) % d->count;
    if (d->requests[i].due_ns > s->now_ns) continue;
    struct request r = d->requests[i];
    r.io->result = take_effect(d, &r);
    memmove(&d->requests[i], &d->requests[i + 1], (--d->count - i) * sizeof *d->requests);
    s->events++;
    d->stats.ios++;
    d->stats.flushes += r.io->op == IO_FLUSH;
    d->stats.fua_writes += r.io->op == IO_WRITE && (r.io->flags & IO_FUA);
    if (r.io->op != IO_READ) moment(s);
    return r.io;
  }
  return NULL;
}

static uint32_t sim_poll(struct device *device) {
  struct sim_device *d = device_of(device);
  struct io *first = NULL, **last = &first, *io;
  uint32_t n = 0;
  check(++d->io->polls < SIM_POLLS_MAX); /* whoever waits waits for ever */
  d->io->now_ns += d->io->calm ? 10000 : random_in(&d->io->random, 1, 500);
  for (uint32_t left = d->count; left > 0 && (io = next_due(d)); left--) {
    io->next = NULL;
    *last = io;
    last = &io->next;
    n++;
  }
  d->done_count = n;
  while (first) {
    io = first;
    first = io->next;
    d->done_count--;
    io->done(io);
  }
  return n;
}

static void sim_sleep(struct device *d, int64_t timeout_ns) { (void)d, (void)timeout_ns; }
static void sim_wake(struct device *d) { device_of(d)->woken = true; }

uint64_t sim_device_due_ns(const struct device *device) {
  const struct sim_device *d = device_of(device);
  uint64_t due = UINT64_MAX;
  for (uint32_t i = 0; i < d->count; i++) due = min_u64(due, d->requests[i].due_ns);
  return due;
}

bool sim_device_take_wake(struct device *device) {
  bool woken = device_of(device)->woken;
  device_of(device)->woken = false;
  return woken;
}
static uint32_t sim_in_flight(const struct device *device) {
  const struct sim_device *d = device_of(device);
  return d->count + d->done_count;
}
static void sim_stats(const struct device *d, struct device_stats *stats) {
  *stats = device_of(d)->stats;
}

const struct device_ops device_sim = {.name = "sim",
                                      .create = sim_create,
                                      .destroy = sim_destroy,
                                      .attach = sim_attach,
                                      .register_memory = sim_register,
                                      .unregister_memory = sim_unregister,
                                      .submit = sim_submit,
                                      .poll = sim_poll,
                                      .sleep = sim_sleep,
                                      .wake = sim_wake,
                                      .in_flight = sim_in_flight,
                                      .stats = sim_stats};
