/* memory.c - see memory.h.
 *
 * The guard's register is read by a signal handler, at any moment and in any thread, so nothing of
 * it may need a lock there: each entry has a sequence number that is odd while it changes. An
 * entry that is just changing is never the one the handler looks for, since nobody touches a range
 * whose memory_guard() has not returned, or whose memory_unguard() has begun. */
#include "api/vhost/memory.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A guest may give one buffer to two of its queues. ThreadSanitizer is told that races there are
 * its own affair. */
#ifdef __SANITIZE_THREAD__
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *at, size_t bytes,
                             const char *what);
static void expect_races(const volatile void *at, size_t bytes) {
  AnnotateBenignRaceSized(__FILE__, __LINE__, at, bytes, "a guest's memory");
}
#else
static void expect_races(const volatile void *at, size_t bytes) { (void)at, (void)bytes; }
#endif

/* ---- Regions --------------------------------------------------------------------------------- */

static bool ranges_meet(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

static bool wraps(uint64_t base, uint64_t bytes) { return base > UINT64_MAX - bytes; }

/* Where the region belongs; -EINVAL: it overlaps one, -ENOSPC. */
static int find_place(const struct guest_memory *m, uint64_t guest, uint64_t user, uint64_t bytes) {
  int place = 0;
  uint64_t total = bytes;
  for (uint32_t i = 0; i < m->count; i++) {
    const struct memory_region *r = &m->regions[i];
    if (ranges_meet(guest, bytes, r->guest, r->bytes)) return -EINVAL;
    if (ranges_meet(user, bytes, r->user, r->bytes)) return -EINVAL;
    if (r->guest < guest) place = (int)i + 1;
    total += r->bytes; /* disjoint: it does not wrap */
  }
  return m->count < MEMORY_SLOTS_MAX && total <= MEMORY_TOTAL_MAX ? place : -ENOSPC;
}

/* What mappings of a file begin and end at: a page, or one of its huge ones. */
static int mapping_unit(int fd, uint64_t *unit) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return -errno;
  *unit = (uint64_t)sysconf(_SC_PAGESIZE);
  if (fs.f_type == HUGETLBFS_MAGIC && (uint64_t)fs.f_bsize > *unit) *unit = (uint64_t)fs.f_bsize;
  return 0;
}

static int map_region(struct memory_region *r, uint64_t file_offset, int fd,
                      _Atomic uint32_t *lost) {
  struct stat st;
  uint64_t unit = 0;
  if (fstat(fd, &st) != 0) return -errno;
  if (wraps(file_offset, r->bytes)) return -EINVAL;
  if (st.st_size < 0 || file_offset + r->bytes > (uint64_t)st.st_size) return -EINVAL;
  int result = mapping_unit(fd, &unit);
  if (result < 0) return result;
  uint64_t start = round_down(file_offset, unit);
  r->mapping_bytes = round_up(file_offset + r->bytes, unit) - start;
  r->mapping = mmap(NULL, r->mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                    (off_t)start);
  if (r->mapping == MAP_FAILED) return -errno;
  r->host = (char *)r->mapping + (file_offset - start);
  expect_races(r->mapping, r->mapping_bytes);
  (void)madvise(r->mapping, r->mapping_bytes, MADV_DONTDUMP); /* a guest's secrets */
  r->file_offset = file_offset;
  r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  result = r->fd < 0 ? -errno : memory_guard(r->mapping, r->mapping_bytes, lost);
  if (result == 0) return 0;
  if (r->fd >= 0) close(r->fd);
  munmap(r->mapping, r->mapping_bytes);
  return result;
}

static void unmap_region(struct memory_region *r) {
  memory_unguard(r->mapping);
  munmap(r->mapping, r->mapping_bytes);
  close(r->fd);
}

int memory_add(struct guest_memory *m, uint64_t guest, uint64_t user, uint64_t bytes,
               uint64_t file_offset, int fd) {
  if (!bytes || wraps(guest, bytes) || wraps(user, bytes)) return -EINVAL;
  int place = find_place(m, guest, user, bytes);
  if (place < 0) return place;
  struct memory_region region = {.guest = guest, .user = user, .bytes = bytes};
  int result = map_region(&region, file_offset, fd, &m->lost);
  if (result < 0) return result;
  struct memory_region *at = &m->regions[place];
  memmove(at + 1, at, (m->count - (uint32_t)place) * sizeof(*at));
  *at = region;
  m->count++;
  return 0;
}

int memory_remove(struct guest_memory *m, uint64_t guest, uint64_t user, uint64_t bytes) {
  for (uint32_t i = 0; i < m->count; i++) {
    struct memory_region *r = &m->regions[i];
    if (r->guest != guest || r->user != user || r->bytes != bytes) continue;
    unmap_region(r);
    m->count--;
    memmove(r, r + 1, (m->count - i) * sizeof(*r));
    memset(&m->regions[m->count], 0, sizeof(*r));
    return 0;
  }
  return -ENOENT;
}

void memory_clear(struct guest_memory *m) {
  for (uint32_t i = 0; i < m->count; i++) unmap_region(&m->regions[i]);
  memset(m->regions, 0, m->count * sizeof(m->regions[0]));
  m->count = 0;
}

/* ---- Translation ----------------------------------------------------------------------------- */

const struct memory_region *memory_region_at(const struct guest_memory *m, uint64_t guest) {
  for (uint32_t i = 0; i < m->count; i++)
    if (guest - m->regions[i].guest < m->regions[i].bytes) return &m->regions[i];
  return NULL;
}

char *memory_at(const struct guest_memory *m, uint64_t guest, uint64_t bytes, uint64_t *run) {
  const struct memory_region *r = bytes ? memory_region_at(m, guest) : NULL;
  if (!r) return NULL;
  uint64_t offset = guest - r->guest;
  *run = min_u64(bytes, r->bytes - offset);
  return r->host + offset;
}

char *memory_user(const struct guest_memory *m, uint64_t user, uint64_t bytes) {
  for (uint32_t i = 0; bytes && i < m->count; i++) {
    const struct memory_region *r = &m->regions[i];
    uint64_t offset = user - r->user;
    if (offset < r->bytes) return bytes <= r->bytes - offset ? r->host + offset : NULL;
  }
  return NULL;
}

int memory_iov(const struct guest_memory *m, uint64_t guest, uint64_t bytes, struct iovec *iov,
               uint32_t *count, uint32_t room, bool join) {
  uint32_t n = *count;
  while (bytes > 0) {
    const struct memory_region *r = memory_region_at(m, guest);
    if (!r) return -EFAULT;
    uint64_t offset = guest - r->guest, run = min_u64(bytes, r->bytes - offset);
    char *at = r->host + offset;
    /* At a region's first byte a piece of another one may end by chance. */
    if (join && offset && n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == at) {
      iov[n - 1].iov_len += run;
    } else {
      if (n == room) return -E2BIG;
      iov[n++] = (struct iovec){at, run};
    }
    bytes -= run;
    guest += run; /* a region's end does not wrap */
  }
  *count = n;
  return 0;
}

/* ---- The guard ------------------------------------------------------------------------------- */

struct guard {
  _Atomic uint32_t sequence;
  _Atomic uintptr_t base, bytes; /* bytes 0: free */
  _Atomic(_Atomic uint32_t *) lost;
};
static struct guard guards[MEMORY_GUARDS_MAX];
static _Atomic uint32_t guards_used; /* no entry from there on was ever used */

/* Under the lock: who is free, and what the handler does not need. */
static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t free_list[MEMORY_GUARDS_MAX], free_count;

static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static struct sigaction handler_before;
static uintptr_t page_bytes;

static void set_guard(struct guard *g, uintptr_t base, uintptr_t bytes, _Atomic uint32_t *lost) {
  atomic_fetch_add(&g->sequence, 1);
  atomic_store(&g->base, base);
  atomic_store(&g->bytes, bytes);
  atomic_store(&g->lost, lost);
  atomic_fetch_add(&g->sequence, 1);
}

/* Async-signal-safe. */
static bool find_guard(uintptr_t address, uintptr_t *base, uintptr_t *bytes,
                       _Atomic uint32_t **lost) {
  uint32_t used = atomic_load(&guards_used);
  for (uint32_t i = 0; i < used; i++) {
    struct guard *g = &guards[i];
    uint32_t sequence = atomic_load(&g->sequence);
    *base = atomic_load(&g->base);
    *bytes = atomic_load(&g->bytes);
    *lost = atomic_load(&g->lost);
    if (address - *base >= *bytes) continue;
    if (!(sequence & 1) && atomic_load(&g->sequence) == sequence) return true;
  }
  return false;
}

/* Zeros in the place of a page, or of the whole range: huge pages are not split, and a process has
 * only so many mappings. */
static bool put_zeros(uintptr_t page, uintptr_t base, uintptr_t bytes) {
  const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *at = (void *)page; /* NOLINT: an address that the kernel gave */
  if (mmap(at, page_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == at) return true;
  at = (void *)base;
  return mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == at;
}

static void pass_on(int signal_number, siginfo_t *info, void *context) {
  const struct sigaction *before = &handler_before;
  bool sent = info->si_code <= 0; /* by a process, not by an access */
  if (before->sa_flags & SA_SIGINFO) {
    before->sa_sigaction(signal_number, info, context);
  } else if (before->sa_handler == SIG_IGN && sent) {
    return;
  } else if (before->sa_handler != SIG_IGN && before->sa_handler != SIG_DFL) {
    before->sa_handler(signal_number);
  } else { /* the process ends when this handler returns */
    signal(signal_number, SIG_DFL);
    raise(signal_number);
  }
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  int saved = errno;
  uintptr_t address = (uintptr_t)info->si_addr, base, bytes;
  _Atomic uint32_t *lost;
  bool access = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;
  if (access && find_guard(address, &base, &bytes, &lost) &&
      put_zeros(round_down(address, page_bytes), base, bytes)) {
    atomic_fetch_add(lost, 1);
  } else {
    pass_on(signal_number, info, context);
  }
  errno = saved;
}

static void install_handler(void) {
  page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
  check(sigaction(SIGBUS, NULL, &handler_before) == 0);
  struct sigaction action = {.sa_sigaction = on_bus_error,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART,
                             .sa_mask = handler_before.sa_mask};
  check(sigaction(SIGBUS, &action, NULL) == 0);
}

int memory_guard(void *base, uint64_t bytes, _Atomic uint32_t *lost) {
  check(bytes > 0);
  check(pthread_once(&handler_once, install_handler) == 0);
  int result = 0;
  pthread_mutex_lock(&guard_lock);
  uint32_t used = atomic_load(&guards_used);
  if (free_count) {
    set_guard(&guards[free_list[--free_count]], (uintptr_t)base, bytes, lost);
  } else if (used < MEMORY_GUARDS_MAX) {
    set_guard(&guards[used], (uintptr_t)base, bytes, lost);
    atomic_store(&guards_used, used + 1);
  } else {
    result = -ENOMEM;
  }
  pthread_mutex_unlock(&guard_lock);
  return result;
}

void memory_unguard(void *base) {
  bool found = false;
  pthread_mutex_lock(&guard_lock);
  uint32_t used = atomic_load(&guards_used);
  for (uint32_t i = 0; i < used && !found; i++) {
    found = atomic_load(&guards[i].bytes) && atomic_load(&guards[i].base) == (uintptr_t)base;
    if (!found) continue;
    set_guard(&guards[i], 0, 0, NULL);
    free_list[free_count++] = i;
  }
  pthread_mutex_unlock(&guard_lock);
  check(found);
}
