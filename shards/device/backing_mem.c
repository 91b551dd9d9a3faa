/* backing_mem.c - memory as a backing: ephemeral stores and tests.
 *
 * Address space is reserved at opening, so that the bytes stay where they are when the backing
 * grows: engines on other threads read b->memory without a lock. Untouched pages cost nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shards/device/engine.h"

#define RESERVE_BYTES (UINT64_C(64) << 30)

struct mem_backing {
  struct backing backing;
  uint64_t reserved_bytes;
};

static int check_range(const struct backing *b, uint64_t bytes, uint64_t offset) {
  uint64_t end = __atomic_load_n(&b->bytes, __ATOMIC_ACQUIRE);
  if (!is_aligned(bytes | offset, BLOCK_BYTES)) return -EINVAL;
  return offset > end || bytes > end - offset ? -EIO : 0;
}

static int mem_read(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  int rc = check_range(b, bytes, offset);
  if (rc == 0 && bytes) memcpy(buf, (char *)b->memory + offset, bytes);
  return rc;
}

static int mem_write(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  int rc = check_range(b, bytes, offset);
  if (rc == 0 && bytes) memcpy((char *)b->memory + offset, buf, bytes);
  return rc;
}

static int mem_flush(struct backing *b) {
  (void)b;
  return 0;
}

static int mem_punch(struct backing *b, uint64_t bytes, uint64_t offset) {
  int rc = check_range(b, bytes, offset);
  if (rc < 0 || bytes == 0) return rc;
  return madvise((char *)b->memory + offset, bytes, MADV_DONTNEED) < 0 ? -errno : 0;
}

static int mem_resize(struct backing *b, uint64_t bytes, bool reserve) {
  struct mem_backing *m = container_of(b, struct mem_backing, backing);
  (void)reserve;
  if (!is_aligned(bytes, BLOCK_BYTES)) return -EINVAL;
  if (bytes > m->reserved_bytes) return -ENOSPC;
  char *memory = b->memory;
  uint64_t before = b->bytes;
  if (bytes > before && mprotect(memory + before, bytes - before, PROT_READ | PROT_WRITE) < 0)
    return -errno;
  __atomic_store_n(&b->bytes, bytes, __ATOMIC_RELEASE);
  if (bytes < before) { /* what is cut off must read as zeros when it comes back */
    madvise(memory + bytes, before - bytes, MADV_DONTNEED);
    mprotect(memory + bytes, before - bytes, PROT_NONE);
  }
  return 0;
}

/* Nobody else can reach this memory by a path; one handle is one owner. */
static int mem_lock(struct backing *b, bool exclusive, uint32_t timeout_ms) {
  (void)b, (void)exclusive, (void)timeout_ms;
  return 0;
}

static void mem_close(struct backing *b) {
  struct mem_backing *m = container_of(b, struct mem_backing, backing);
  munmap(b->memory, m->reserved_bytes);
  free(m);
}

static const struct backing_ops mem_ops = {
    .read = mem_read,
    .write = mem_write,
    .flush = mem_flush,
    .punch = mem_punch,
    .resize = mem_resize,
    .lock = mem_lock,
    .close = mem_close,
};

int backing_open_memory(struct backing **b, uint64_t bytes) {
  if (bytes == 0 || !is_aligned(bytes, BLOCK_BYTES)) return -EINVAL;
  struct mem_backing *m = calloc(1, sizeof *m);
  if (!m) return -ENOMEM;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  m->reserved_bytes = max_u64(bytes, RESERVE_BYTES);
  void *memory = mmap(NULL, m->reserved_bytes, PROT_NONE, flags, -1, 0);
  if (memory == MAP_FAILED) { /* a limit on address space: then without room to grow */
    m->reserved_bytes = bytes;
    memory = mmap(NULL, bytes, PROT_NONE, flags, -1, 0);
  }
  if (memory == MAP_FAILED || mprotect(memory, bytes, PROT_READ | PROT_WRITE) < 0) {
    int rc = -errno;
    if (memory != MAP_FAILED) munmap(memory, m->reserved_bytes);
    free(m);
    return rc;
  }
  m->backing.ops = &mem_ops;
  m->backing.fd = m->backing.lock_fd = -1;
  m->backing.memory = memory;
  m->backing.bytes = bytes;
  m->backing.numa_node = -1;
  /* Its own device cache, if it had one. */
  m->backing.device_id = (uint64_t)(uintptr_t)memory;
  snprintf(m->backing.name, sizeof m->backing.name, "memory");
  *b = &m->backing;
  return 0;
}
