/* memory.h - a guest's memory as this process sees it: regions that a monitor has shared, and the
 * translation of its two kinds of addresses.
 *
 * guest addresses (physical; in descriptors) and user addresses (the monitor's own; of the rings)
 * name the same regions. A table is changed by the thread that owns the client, and only while
 * none of its rings runs; in between any core reads it. Every address is the guest's word: a range
 * counts only if all of it lies in regions, and no sum wraps.
 *
 * Files that a monitor shares can be cut shorter at any time. Then a touch raises SIGBUS:
 * memory_guard() has a handler put zeros there and note it, so that the client can be dropped; no
 * other client notices. System calls and rings of the kernel answer -EFAULT by themselves. */
#ifndef API_VHOST_MEMORY_H
#define API_VHOST_MEMORY_H

#include <string.h>
#include <sys/uio.h>

#include "shards/base/base.h"

#define MEMORY_SLOTS_MAX 64u /* regions of one client */
/* Of all its regions: a file of no bytes can be of any size, a process has 2^47 for everybody. */
#define MEMORY_TOTAL_MAX (UINT64_C(1) << 44)

struct memory_region {
  uint64_t guest, user, bytes; /* no sum of them wraps */
  char *host;                  /* where `guest` and `user` begin here */
  void *mapping;               /* what was mapped: whole pages, from the file's offset on */
  uint64_t mapping_bytes;
  uint64_t file_offset;
  int fd; /* our own, of the file: for whoever serves the guest next */
};
/* Begins zeroed, and stays where it is while it has regions. */
struct guest_memory {
  uint32_t count;
  _Atomic uint32_t lost; /* not 0: a mapping was touched behind the end of its file */
  /* By guest address; disjoint in both kinds. Those behind `count` are zeros: nothing is in them.
   */
  struct memory_region regions[MEMORY_SLOTS_MAX];
};

/* Maps [file_offset, +bytes) of fd, readable and writable and shared, as a region. The descriptor
 * stays the caller's. -EINVAL: empty, wraps, overlaps another region in guest or user addresses,
 * or longer than the file; -ENOSPC: no slot, or beyond MEMORY_TOTAL_MAX; or why it could not be
 * mapped (-ENOMEM, -EACCES). */
int memory_add(struct guest_memory *m, uint64_t guest, uint64_t user, uint64_t bytes,
               uint64_t file_offset, int fd);
/* Unmaps the region with just these; -ENOENT. */
int memory_remove(struct guest_memory *m, uint64_t guest, uint64_t user, uint64_t bytes);
void memory_clear(struct guest_memory *m);

/* The region that has a guest address; NULL: none. */
const struct memory_region *memory_region_at(const struct guest_memory *m, uint64_t guest);
/* Where a guest address lies, and how many bytes follow there in a row in one region, at most
 * `bytes`; NULL: nowhere, or bytes is 0. */
char *memory_at(const struct guest_memory *m, uint64_t guest, uint64_t bytes, uint64_t *run);
/* All of [user, +bytes), which must lie in one region; NULL: it does not. */
char *memory_user(const struct guest_memory *m, uint64_t user, uint64_t bytes);
/* Adds [guest, +bytes) to a vector, split where regions meet; a piece that goes on where the last
 * one ends, in the same region, joins it (only if `join`). No bytes: no piece. 0; -EFAULT: not all
 * of it is memory; -E2BIG: the vector, which has room for `room`, is full. On errors *count is as
 * before, but what lies behind it is undefined. */
int memory_iov(const struct guest_memory *m, uint64_t guest, uint64_t bytes, struct iovec *iov,
               uint32_t *count, uint32_t room, bool join);

/* A copy of what may change at any moment: `to` is read afterwards, never `from` again. */
static inline void memory_copy(void *to, const void *from, size_t bytes) {
  memcpy(to, from, bytes);
  __asm__ volatile("" ::: "memory"); /* for all the compiler knows `from` is another one now */
}

/* ---- SIGBUS ---- */

/* From now on a touch of [base, +bytes) behind the end of its file gives zeros and adds 1 to *lost.
 * Process-wide; any thread. The first call installs the handler, which passes on to the one before
 * whatever lies elsewhere. -ENOMEM: more than MEMORY_GUARDS_MAX.
 * memory_add() does it for its mappings, with the table's `lost`. */
#define MEMORY_GUARDS_MAX 65536u
int memory_guard(void *base, uint64_t bytes, _Atomic uint32_t *lost);
/* Nobody touches the range any more. Before it is unmapped: its addresses may soon be another's. */
void memory_unguard(void *base);

#endif
