/* mem_store.c - see mem_store.h. */
#include "tests/fuzz/mem_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/store.h"
#include "shards/format.h"

#define LOG_BLOCKS 256u
#define ROOT_BLOCK 16u
#define FIRST      64u
#define COPY_BYTES (1u << 20)

static const uint8_t uuid[16] = "a store's bytes";

static struct identity *identity_of(uint64_t blocks, uint64_t shard_blocks) {
  struct identity *id = fuzz_alloc(sizeof *id);
  memset(id, 0, sizeof *id);
  *id = (struct identity){.version = FORMAT_VERSION,
                          .generation = 1,
                          .hash_key = {7, 8},
                          .shard_count = MEM_SHARDS,
                          .backing_count = 1,
                          .backing_blocks = blocks,
                          .log_blocks = LOG_BLOCKS,
                          .root_block = ROOT_BLOCK,
                          .root_slot_blocks = 2 * root_copy_blocks(MEM_SHARDS),
                          .segment_count = MEM_SHARDS};
  memcpy(id->uuid, uuid, sizeof id->uuid);
  for (uint32_t s = 0; s < MEM_SHARDS; s++)
    id->segments[s] =
        (struct format_segment){.shard = s,
                                .first_block = FIRST + s * (LOG_BLOCKS + shard_blocks),
                                .blocks = LOG_BLOCKS + shard_blocks};
  return id;
}

static void write_blocks(const struct mem_store *m, uint64_t block, const void *buf, uint64_t n) {
  ssize_t bytes = (ssize_t)(n << BLOCK_SHIFT);
  check(pwrite(m->fd, buf, (size_t)bytes, (off_t)(block << BLOCK_SHIFT)) == bytes);
}

static void make_file(struct mem_store *m, uint64_t blocks) {
  m->blocks = blocks;
  m->fd = memfd_create("fuzz", MFD_CLOEXEC);
  check(m->fd >= 0);
  check(ftruncate(m->fd, (off_t)(blocks << BLOCK_SHIFT)) == 0);
}

void mem_store_format(struct mem_store *m, uint64_t shard_blocks) {
  uint64_t copy = root_copy_blocks(MEM_SHARDS);
  make_file(m, FIRST + MEM_SHARDS * (LOG_BLOCKS + shard_blocks) + FORMAT_IDENTITY_BLOCKS);
  struct identity *id = identity_of(m->blocks, shard_blocks);
  struct root *root = calloc(1, sizeof *root);
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS + 2 * copy);
  check(root != NULL);
  identity_encode(id, buf);
  write_blocks(m, 0, buf, FORMAT_IDENTITY_BLOCKS);
  write_blocks(m, m->blocks - FORMAT_IDENTITY_BLOCKS, buf, FORMAT_IDENTITY_BLOCKS);
  root->epoch = root->incarnation = 1;
  root->shard_count = MEM_SHARDS;
  for (uint32_t s = 0; s < MEM_SHARDS; s++) root->shards[s].sequence = 1;
  root_encode(root, uuid, buf);
  write_blocks(m, ROOT_BLOCK + root_slot_of_epoch(1) * 2 * copy, buf, 2 * copy);
  free(buf);
  free(root);
  free(id);
}

void mem_store_copy(struct mem_store *m, const struct mem_store *from) {
  off_t end = (off_t)(from->blocks << BLOCK_SHIFT), at = 0;
  char *buf = fuzz_alloc(COPY_BYTES);
  make_file(m, from->blocks);
  while (at < end && (at = lseek(from->fd, at, SEEK_DATA)) >= 0) {
    off_t hole = lseek(from->fd, at, SEEK_HOLE);
    for (; at < hole; at += COPY_BYTES) {
      size_t n = (size_t)min_u64((uint64_t)(hole - at), COPY_BYTES);
      check(pread(from->fd, buf, n, at) == (ssize_t)n);
      check(pwrite(m->fd, buf, n, at) == (ssize_t)n);
    }
    at = hole;
  }
  free(buf);
}

void mem_store_drop(struct mem_store *m) { close(m->fd); }

static void local_finished(struct peer *peer, struct shard_op *op) {
  (void)peer, (void)op;
  check(false); /* nobody uses the cores' own ports */
}

static uint64_t tick_ns(void *arg) {
  (void)arg;
  static uint64_t now_ns; /* goes on over the inputs, but only differences count */
  return now_ns += 10000000;
}
static const struct clock ticking = {tick_ns, NULL};

static struct store_config config_of(bool read_only, enum damaged_mode damaged) {
  return (struct store_config){.core_count = 1,
                               .read_only = read_only,
                               .no_background = true,
                               .stepped = true,
                               .queue_depth = 64,
                               .poll_us = 50,
                               .arena_bytes = 1 << 20,
                               .seed = 1,
                               .damaged = damaged,
                               .logger = fuzz_silent,
                               .local_finished = local_finished};
}

int mem_store_open(struct mem_store *m, bool read_only, enum damaged_mode damaged,
                   struct sr_store **out) {
  struct store_config config = config_of(read_only, damaged);
  uint64_t bytes = m->blocks << BLOCK_SHIFT;
  struct backing *b;
  struct store *s = NULL;
  config.engine_ops = &device_mem;
  config.clock = &ticking;
  check(backing_open_memory(&b, bytes) == 0);
  check(mmap(b->memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd, 0) !=
        MAP_FAILED);
  int r = layout_open_backings(&config.layout, &b, 1, read_only, &config.logger);
  if (r) return r;
  r = store_open(&s, NULL, &config);
  check((r == 0) == (s != NULL));
  if (r) layout_close(config.layout);
  *out = (struct sr_store *)s;
  return r;
}

int mem_store_open_file(struct mem_store *m, bool read_only, struct sr_store **out) {
  struct store_config config = config_of(read_only, DAMAGED_REFUSE);
  struct store *s = NULL;
  char where[32];
  config.engine_ops = &device_pool;
  snprintf(where, sizeof where, "fd:%d", m->fd);
  int r = store_open(&s, where, &config);
  *out = (struct sr_store *)s;
  return r;
}
