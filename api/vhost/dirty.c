/* dirty.c - see dirty.h. */
#include "api/vhost/dirty.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int dirty_map(struct dirty_log *log, int fd, uint64_t offset, uint64_t bytes,
              _Atomic uint32_t *lost) {
  struct stat st;
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), start = round_down(offset, page);
  if (!bytes || fstat(fd, &st) < 0 || offset > (uint64_t)st.st_size ||
      bytes > (uint64_t)st.st_size - offset)
    return -EINVAL;
  uint64_t mapping_bytes = offset + bytes - start;
  void *mapping = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
  if (mapping == MAP_FAILED) return -errno;
  int r = memory_guard(mapping, mapping_bytes, lost);
  if (r) {
    munmap(mapping, mapping_bytes);
    return r;
  }
  *log = (struct dirty_log){.bits = (uint8_t *)mapping + (offset - start),
                            .bytes = bytes,
                            .mapping = mapping,
                            .mapping_bytes = mapping_bytes};
  return 0;
}

void dirty_unmap(struct dirty_log *log) {
  if (!log->mapping) return;
  memory_unguard(log->mapping);
  munmap(log->mapping, log->mapping_bytes);
  memset(log, 0, sizeof *log);
}

void dirty_mark_host(const struct dirty_log *log, const struct guest_memory *memory, const void *at,
                     uint64_t bytes) {
  for (uint32_t i = 0; i < memory->count; i++) {
    const struct memory_region *r = &memory->regions[i];
    uint64_t offset = (uint64_t)((const char *)at - r->host);
    if ((const char *)at < r->host || offset >= r->bytes) continue;
    dirty_mark(log, r->guest + offset, min_u64(bytes, r->bytes - offset));
    return;
  }
}
