/* write_log.c - the log of a disk's writes, as an array. */
#include "tests/crash/write_log.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUPER_MAGIC   UINT64_C(0x6a736677736872)
#define SUPER_VERSION 1

static uint64_t get64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return le64toh(v);
}

static int map_file(struct write_log *log, const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int r = fstat(fd, &st) ? -errno : 0;
  if (!r && st.st_size < 4096) r = -EBADMSG;
  if (!r) {
    log->map_bytes = (uint64_t)st.st_size;
    log->map = mmap(NULL, log->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (log->map == MAP_FAILED) r = -errno;
  }
  if (r) log->map = NULL;
  close(fd);
  return r;
}

/* One entry at `offset`; moves offset behind its data. */
static int read_entry(const struct write_log *log, uint64_t sector, uint64_t *offset,
                      struct write_entry *e) {
  if (log->map_bytes < sector || *offset > log->map_bytes - sector) return -EBADMSG;
  const uint8_t *p = log->map + *offset;
  uint64_t sectors = get64(p + 8);
  if (sectors > UINT64_MAX / 2 / sector) return -EBADMSG;
  *e = (struct write_entry){get64(p) * sector, sectors * sector, get64(p + 16), NULL};
  *offset += sector;
  if (e->flags & WRITE_MARK) return -EBADMSG; /* the driver writes none */
  if ((e->flags & WRITE_DISCARD) || e->bytes == 0) return 0;
  if (e->bytes > log->map_bytes - *offset) return -EBADMSG;
  e->data = log->map + *offset;
  *offset += e->bytes;
  return 0;
}

int write_log_open(struct write_log *log, const char *path) {
  *log = (struct write_log){0};
  int r = map_file(log, path);
  if (r) return r;
  uint64_t magic = get64(log->map), version = get64(log->map + 8);
  uint64_t count = get64(log->map + 16), sector = get64(log->map + 24) & UINT32_MAX;
  uint64_t offset = sector;
  if (magic != SUPER_MAGIC || version != SUPER_VERSION || sector < 512 || sector > 4096)
    r = -EBADMSG;
  if (!r && count > log->map_bytes / sector) r = -EBADMSG;
  if (!r) log->entries = calloc(count + 1, sizeof *log->entries);
  for (; !r && log->count < count; log->count++)
    r = read_entry(log, sector, &offset, &log->entries[log->count]);
  if (r) write_log_close(log);
  return r;
}

void write_log_close(struct write_log *log) {
  if (log->map) munmap(log->map, log->map_bytes);
  free(log->entries);
  *log = (struct write_log){0};
}
