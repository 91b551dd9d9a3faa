/* disk_model.c - see disk_model.h. */
#include "tests/fuzz/disk_model.h"

#include <stdlib.h>

#define BLOCK 4096u

const char *const disk_names[DISK_NAMES] = {"a", "b", "disk", "\xc3\xa9", "snapshot 1", "z.z"};

struct disk *disk_new(struct disks *all) {
  struct disk *d = fuzz_alloc(sizeof *d);
  memset(d, 0, sizeof *d);
  memset(d->known, true, sizeof d->known);
  d->next = all->all;
  all->all = d;
  return d;
}

struct disk *disk_copy(struct disks *all, const struct disk *of) {
  struct disk *d = disk_new(all);
  memcpy(d->content, of->content, sizeof d->content);
  memcpy(d->known, of->known, sizeof d->known);
  d->size = of->size;
  d->block = of->block;
  d->stripe = of->stripe;
  return d;
}

void disks_free(struct disks *all) {
  for (struct disk *d = all->all, *next; d; d = next) {
    next = d->next;
    free(d);
  }
}

static uint64_t in_window(uint64_t offset, uint64_t bytes) {
  return offset >= DISK_WINDOW ? 0 : min_u64(bytes, DISK_WINDOW - offset);
}

static void set_known(struct disk *d, uint64_t offset, uint64_t bytes, bool known) {
  for (uint64_t at = offset; at < offset + in_window(offset, bytes); at += DISK_SECTOR)
    d->known[at / DISK_SECTOR] = known;
}

void disk_write(struct disk *d, uint64_t offset, uint64_t bytes, const uint8_t *data) {
  uint64_t n = in_window(offset, bytes);
  if (n) memcpy(d->content + offset, data, n);
  set_known(d, offset, bytes, true);
}

void disk_zero(struct disk *d, uint64_t offset, uint64_t bytes) {
  uint64_t n = in_window(offset, bytes);
  if (n) memset(d->content + offset, 0, n);
  set_known(d, offset, bytes, true);
}

void disk_discard(struct disk *d, uint64_t offset, uint64_t bytes) {
  uint64_t first = round_up(offset, BLOCK), end = round_down(offset + bytes, BLOCK);
  if (end > first) disk_zero(d, first, end - first);
  end = max_u64(end, offset);
  if (offset + bytes == d->size && d->size % BLOCK && offset <= round_down(d->size, BLOCK))
    disk_forget(d, end, d->size - end);
}

void disk_forget(struct disk *d, uint64_t offset, uint64_t bytes) {
  uint64_t first = round_down(offset, BLOCK);
  if (bytes) set_known(d, first, round_up(offset + bytes, BLOCK) - first, false);
}

void disk_resize(struct disk *d, uint64_t size) {
  if (size < d->size) disk_zero(d, size, DISK_WINDOW);
  d->size = size;
}

void disk_check(const struct disk *d, uint64_t offset, uint64_t bytes, const uint8_t *data) {
  uint64_t end = offset + in_window(offset, bytes);
  for (uint64_t at = offset; at < end; at += DISK_SECTOR)
    if (d->known[at / DISK_SECTOR])
      check(memcmp(data + (at - offset), d->content + at, DISK_SECTOR) == 0);
}

bool disk_lies_on(const struct disk *d, const struct disk *snapshot) {
  for (d = d->parent; d; d = d->parent)
    if (d == snapshot) return true;
  return false;
}
