/* direct.c - see direct.h. A table of leaves, each under a version: odd while it counts. The owner
 * makes it even before it changes anything in the leaf; a reader that finds the same odd version
 * before and after has seen nothing of a change. `epoch` does the same for all leaves at once.
 *
 * Order. Owner: version (even), contents, each with release, version (odd) with release: who sees a
 * part of the new contents sees the even version as well. Readers: version, contents, each with
 * acquire, then the version again. After the device was read a fence keeps that last look behind
 * it. The owner's even version is out before anybody can be told of the change, since whatever
 * tells of it, and every way of giving I/O to the kernel or to another thread, is a release. */
#include "shards/direct.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shards/base/crc32c.h"
#include "shards/base/plant.h"

#define BOUNCE_BYTES  (16u << 10) /* on the reader's stack */
#define COUNTERS      16u         /* a power of two */
#define WAIT_CHANGED  64u         /* reads that go by before a leaf that was taken back is filled */
#define WAIT_REPLACED 16u         /* ... before another one takes the slot */

/* An entry of a cluster: place | shard << 32 | valid << 48, with the blocks that are not valid
 * being zeros; or MIXED, and the blocks' own entries say it: place | shard << 32, 0: zeros. */
#define MIXED   UINT64_C(1) /* valid 0 and a place */
#define UNKNOWN UINT64_C(2)

struct leaf {
  _Atomic uint64_t version; /* odd: it counts */
  _Atomic uint64_t number, epoch;
  uint32_t wait;   /* the owner's: reads that it lets go by */
  bool incomplete; /* the owner's: some are UNKNOWN */
  _Atomic uint64_t clusters[LEAF_CLUSTERS];
  _Atomic uint64_t summed[SUMS_WORDS];
};
_Static_assert(sizeof(struct leaf) == 672, "there are thousands");

struct counter { /* of some readers, so that they do not fight for one line */
  _Alignas(64) _Atomic uint64_t reads;
  _Atomic uint64_t bytes;
  _Atomic uint32_t under_way;
};

struct direct {
  struct counter counters[COUNTERS];
  _Atomic uint64_t epoch;
  const struct region *regions;
  uint32_t mask;       /* slots - 1 */
  bool allowed;        /* the owner's */
  struct leaf *at;     /* the owner's: that is being filled */
  struct leaf *leaves; /* [slots], and then the other two */
  size_t mapped_bytes;
  _Atomic uint64_t (*blocks)[LEAF_BLOCKS]; /* by slot: of MIXED clusters */
  _Atomic uint32_t (*sums)[LEAF_BLOCKS];
};

/* ---- Life ------------------------------------------------------------------------------------ */

static bool can_be_read(const struct region *r) {
  for (uint32_t i = 0; i < r->segment_count; i++)
    if (r->segments[i].backing->fd < 0) return false;
  return r->segment_count > 0;
}

int direct_create(struct direct **out, const struct region *regions, uint32_t region_count,
                  uint64_t bytes) {
  uint64_t leaves = div_up(bytes, UINT64_C(1) << LEAF_SHIFT);
  uint32_t slots = 1;
  for (uint32_t i = 0; i < region_count; i++)
    if (!can_be_read(&regions[i])) return -EOPNOTSUPP;
  while (slots < leaves && slots < DIRECT_LEAVES_MAX) slots *= 2;
  struct direct *d = aligned_alloc(64, round_up(sizeof *d, 64));
  if (!d) return -ENOMEM;
  memset(d, 0, sizeof *d);
  d->regions = regions;
  d->mask = slots - 1;
  d->allowed = true;
  /* Not by malloc, which may touch it: what is not used takes no memory. */
  size_t each = sizeof *d->leaves + sizeof *d->blocks + sizeof *d->sums;
  d->mapped_bytes = slots * each;
  d->leaves = mmap(NULL, d->mapped_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (d->leaves == MAP_FAILED) {
    free(d);
    return -ENOMEM;
  }
  d->blocks = (void *)(d->leaves + slots);
  d->sums = (void *)(d->blocks + slots);
  *out = d;
  return 0;
}

void direct_destroy(struct direct *d) {
  if (!d) return;
  check(!direct_is_busy(d));
  munmap(d->leaves, d->mapped_bytes);
  free(d);
}

bool direct_is_busy(const struct direct *d) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < COUNTERS; i++)
    n += atomic_load_explicit(&d->counters[i].under_way, memory_order_acquire);
  return n > 0;
}

void direct_stats(const struct direct *d, struct direct_stats *stats) {
  *stats = (struct direct_stats){0};
  for (uint32_t i = 0; i < COUNTERS; i++) {
    stats->reads += atomic_load_explicit(&d->counters[i].reads, memory_order_relaxed);
    stats->bytes += atomic_load_explicit(&d->counters[i].bytes, memory_order_relaxed);
  }
}

/* ---- The owner --------------------------------------------------------------------------------
 */

static uint64_t owners(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_relaxed);
}

static void take_back(struct leaf *l, uint32_t wait) {
  uint64_t version = owners(&l->version);
  if (!(version & 1)) return;
  atomic_store_explicit(&l->version, version + 1, memory_order_release);
  l->wait = wait;
}

void direct_leaf_changed(struct direct *d, uint64_t leaf) {
  struct leaf *l = &d->leaves[leaf & d->mask];
  if (owners(&l->number) == leaf && !PLANTED(keep_what_was_said)) take_back(l, WAIT_CHANGED);
}

void direct_all_changed(struct direct *d) {
  if (PLANTED(keep_what_was_said)) return;
  atomic_store_explicit(&d->epoch, owners(&d->epoch) + 1, memory_order_release);
}

void direct_allow(struct direct *d, bool allowed) {
  if (d->allowed == allowed) return;
  d->allowed = allowed;
  direct_all_changed(d);
}

bool direct_wants(struct direct *d, uint64_t leaf) {
  struct leaf *l = &d->leaves[leaf & d->mask];
  bool counts = owners(&l->version) & 1 && owners(&l->epoch) == owners(&d->epoch);
  if (!d->allowed || (counts && owners(&l->number) == leaf)) return false;
  if (!l->wait) return true;
  l->wait--;
  return false;
}

void direct_publish_begin(struct direct *d, uint64_t leaf) {
  struct leaf *l = d->at = &d->leaves[leaf & d->mask];
  take_back(l, 0);
  l->incomplete = false;
  atomic_store_explicit(&l->number, leaf, memory_order_release);
  atomic_store_explicit(&l->epoch, owners(&d->epoch), memory_order_release);
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    atomic_store_explicit(&l->summed[i], 0, memory_order_release);
}

/* True if the blocks with data lie as in one cluster. The place may be before 0 (a coincidence): as
 * it is only added to, it may wrap. */
static bool simple_entry(const struct direct_cluster *c, uint64_t *entry) {
  uint32_t place = 0, valid = 0;
  uint16_t shard = 0;
  for (uint32_t i = 0; i < CLUSTER_BLOCKS; i++) {
    if (!c->place[i]) continue;
    if (valid && (c->place[i] - i != place || c->shard[i] != shard)) return false;
    place = c->place[i] - i;
    shard = c->shard[i];
    valid |= 1u << i;
  }
  *entry = place | (uint64_t)shard << 32 | (uint64_t)valid << 48;
  return true;
}

void direct_publish_cluster(struct direct *d, uint32_t slot, const struct direct_cluster *c) {
  struct leaf *l = d->at;
  uint64_t entry, which = (uint64_t)(l - d->leaves);
  uint32_t first = slot * CLUSTER_BLOCKS;
  if (!c) {
    atomic_store_explicit(&l->clusters[slot], UNKNOWN, memory_order_release);
    l->incomplete = true;
    return;
  }
  if (!simple_entry(c, &entry)) {
    entry = MIXED;
    for (uint32_t i = 0; i < CLUSTER_BLOCKS; i++)
      atomic_store_explicit(&d->blocks[which][first + i], c->place[i] | (uint64_t)c->shard[i] << 32,
                            memory_order_release);
  }
  atomic_store_explicit(&l->clusters[slot], entry, memory_order_release);
  if (!c->summed) return;
  for (uint32_t i = 0; i < CLUSTER_BLOCKS; i++)
    if (c->summed >> i & 1)
      atomic_store_explicit(&d->sums[which][first + i], c->sum[i], memory_order_release);
  uint64_t bits = owners(&l->summed[first / 64]) | (uint64_t)c->summed << first % 64;
  atomic_store_explicit(&l->summed[first / 64], bits, memory_order_release);
}

void direct_publish_end(struct direct *d) {
  struct leaf *l = d->at;
  l->wait = WAIT_REPLACED;
  atomic_store_explicit(&l->version, owners(&l->version) + 1, memory_order_release);
}

void direct_leaf_incomplete(struct direct *d, uint64_t leaf) {
  struct leaf *l = &d->leaves[leaf & d->mask];
  if (l->incomplete && owners(&l->number) == leaf) take_back(l, 0);
}

/* ---- Readers: looking up ----------------------------------------------------------------------
 */

/* What a reader was told, to be asked again afterwards. */
struct told {
  const struct leaf *leaf;
  uint64_t version, epoch;
};

static bool still_so(const struct direct *d, const struct told *t) {
  return atomic_load_explicit(&t->leaf->version, memory_order_acquire) == t->version &&
         atomic_load_explicit(&d->epoch, memory_order_acquire) == t->epoch;
}

static uint64_t readers(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_acquire);
}

static bool ask(const struct direct *d, uint64_t leaf, struct told *t) {
  t->leaf = &d->leaves[leaf & d->mask];
  t->epoch = readers(&d->epoch);
  t->version = readers(&t->leaf->version);
  return t->version & 1 && readers(&t->leaf->number) == leaf &&
         readers(&t->leaf->epoch) == t->epoch;
}

/* place | shard << 32; 0: zeros; NOWHERE. Nonsense, if the leaf was taken back meanwhile. */
#define NOWHERE UINT64_MAX
static uint64_t block_at(const struct direct *d, const struct leaf *l, uint32_t block) {
  uint64_t entry = readers(&l->clusters[block / CLUSTER_BLOCKS]);
  uint32_t i = block % CLUSTER_BLOCKS;
  if (entry == MIXED) return readers(&d->blocks[l - d->leaves][block]);
  if (entry == UNKNOWN) return NOWHERE;
  if (!(entry >> 48 >> i & 1)) return 0;
  return (uint32_t)((uint32_t)entry + i) | (entry & UINT64_C(0xffff00000000));
}

#define RUN_MAX (DIRECT_BYTES_MAX / BLOCK_BYTES)
struct run {
  uint64_t at; /* as block_at() */
  uint32_t blocks;
  uint32_t summed; /* bits of those that must have the checksum in sum[] */
  uint32_t sum[RUN_MAX];
};

/* The blocks from one on, of at most max and of one leaf, that lie in a row. */
static void find_run(const struct direct *d, const struct leaf *l, uint32_t block, uint32_t max,
                     struct run *run) {
  run->at = block_at(d, l, block);
  run->blocks = 1;
  while (run->blocks < max &&
         block_at(d, l, block + run->blocks) == (run->at ? run->at + run->blocks : 0))
    run->blocks++;
  run->summed = 0;
  for (uint32_t i = 0; run->at && i < run->blocks; i++) {
    uint32_t b = block + i;
    if (!(readers(&l->summed[b / 64]) >> b % 64 & 1)) continue;
    run->summed |= 1u << i;
    run->sum[i] = atomic_load_explicit(&d->sums[l - d->leaves][b], memory_order_acquire);
  }
}

/* ---- Readers: reading -------------------------------------------------------------------------
 */

static bool fits(const struct run *run, const char *data) {
  for (uint32_t left = run->summed; left; left &= left - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(left);
    if (crc32c(0, data + ((size_t)i << BLOCK_SHIFT), BLOCK_BYTES) != run->sum[i]) return false;
  }
  return true;
}

static bool read_run(const struct direct *d, const struct run *run, char *to) {
  const struct region *r = &d->regions[run->at >> 32];
  uint64_t block = (uint32_t)run->at, left = run->blocks;
  while (left) {
    struct io io;
    uint64_t n = region_map(r, block, left, &io);
    struct backing *b = region_segment(r, block)->backing;
    if (b->ops->read(b, to, n << BLOCK_SHIFT, io.offset)) return false;
    to += n << BLOCK_SHIFT;
    block += n;
    left -= n;
  }
  return true;
}

/* The first part of what is wanted, in one leaf and in a row on the device: how much; 0: no. */
static uint64_t read_some(const struct direct *d, char *buf, uint64_t bytes, uint64_t offset) {
  _Alignas(BLOCK_BYTES) char bounce[BOUNCE_BYTES];
  uint64_t block = offset >> BLOCK_SHIFT, in = offset & (BLOCK_BYTES - 1);
  bool straight = is_aligned((uintptr_t)buf | in | bytes, BLOCK_BYTES);
  uint64_t max = min_u64(bytes_to_blocks(in + bytes), LEAF_BLOCKS - block % LEAF_BLOCKS);
  struct told told;
  struct run run;
  if (!straight) max = min_u64(max, BOUNCE_BYTES / BLOCK_BYTES);
  if (!ask(d, block >> LEAF_BLOCK_SHIFT, &told)) return 0;
  find_run(d, told.leaf, (uint32_t)(block % LEAF_BLOCKS), (uint32_t)max, &run);
  if (!still_so(d, &told) || run.at == NOWHERE) return 0;
  uint64_t take = min_u64(bytes, ((uint64_t)run.blocks << BLOCK_SHIFT) - in);
  if (!run.at) {
    memset(buf, 0, take);
    return take;
  }
  char *to = straight ? buf : bounce;
  if (!read_run(d, &run, to)) return 0;
  atomic_thread_fence(memory_order_acquire); /* the device was read before */
  if (!still_so(d, &told) || !fits(&run, to)) return 0;
  if (!straight) memcpy(buf, bounce + in, take);
  return take;
}

uint32_t direct_enter(struct direct *d) {
  uint32_t mine = (uint32_t)sched_getcpu() % COUNTERS;
  atomic_fetch_add_explicit(&d->counters[mine].under_way, 1, memory_order_acquire);
  return mine;
}

void direct_leave(struct direct *d, uint32_t entered) {
  atomic_fetch_sub_explicit(&d->counters[entered].under_way, 1, memory_order_release);
}

bool direct_read(struct direct *d, void *buf, uint64_t bytes, uint64_t offset) {
  uint64_t done = 0, n = 1;
  if (bytes > DIRECT_BYTES_MAX) return false;
  uint32_t entered = direct_enter(d);
  struct counter *c = &d->counters[entered];
  for (; n && done < bytes; done += n)
    n = read_some(d, (char *)buf + done, bytes - done, offset + done);
  if (n) {
    atomic_fetch_add_explicit(&c->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes, bytes, memory_order_relaxed);
  }
  direct_leave(d, entered);
  return n > 0;
}
