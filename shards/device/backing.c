/* backing.c - files and block devices as backings: opening, locking, synchronous transfers.
 *
 * Any thread may use a backing; concurrent calls are the kernel's to order. Only resize changes
 * the struct after opening (bytes, atomically): whoever resizes sees to it that nobody counts on
 * the bytes cut off.
 *
 * Locks are OFD locks: they belong to the open file, so that two opens in one process exclude
 * each other, and the kernel drops them with the last descriptor, also when a process is killed.
 * On a block device they cover its node under /dev. */
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "shards/device/engine.h"

#define CHUNK_BYTES   (UINT64_C(64) << 20) /* of one synchronous call */
#define LOCK_PAUSE_MS 5

/* ---- Transfers -------------------------------------------------------------------------- */

static int check_range(const struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  uint64_t end = __atomic_load_n(&b->bytes, __ATOMIC_ACQUIRE);
  if (!is_aligned((uintptr_t)buf | bytes | offset, BLOCK_BYTES)) return -EINVAL;
  return offset > end || bytes > end - offset ? -EIO : 0;
}

/* The call's answer: bytes moved, in whole blocks so that the rest stays aligned; 0: again. */
static int64_t moved_blocks(ssize_t n) {
  if (n < 0) return errno == EINTR || errno == EAGAIN ? 0 : -errno;
  uint64_t whole = round_down((uint64_t)n, BLOCK_BYTES);
  return whole ? (int64_t)whole : -EIO;
}

static int file_read(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  int rc = check_range(b, buf, bytes, offset);
  for (uint64_t done = 0; rc == 0 && done < bytes;) {
    size_t part = (size_t)min_u64(bytes - done, CHUNK_BYTES);
    int64_t n = moved_blocks(pread(b->fd, (char *)buf + done, part, (off_t)(offset + done)));
    if (n < 0)
      rc = (int)n;
    else
      done += (uint64_t)n;
  }
  return rc;
}

static int file_write(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  int rc = b->read_only ? -EROFS : check_range(b, buf, bytes, offset);
  for (uint64_t done = 0; rc == 0 && done < bytes;) {
    size_t part = (size_t)min_u64(bytes - done, CHUNK_BYTES);
    int64_t n = moved_blocks(pwrite(b->fd, (const char *)buf + done, part, (off_t)(offset + done)));
    if (n < 0)
      rc = (int)n;
    else
      done += (uint64_t)n;
  }
  return rc;
}

static int file_flush(struct backing *b) {
  int rc;
  do rc = fdatasync(b->fd);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? -errno : 0;
}

/* ---- Space ------------------------------------------------------------------------------ */

static int allocate(int fd, int mode, uint64_t offset, uint64_t bytes) {
  int rc;
  do rc = fallocate(fd, mode, (off_t)offset, (off_t)bytes);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? -errno : 0;
}

static int file_punch(struct backing *b, uint64_t bytes, uint64_t offset) {
  if (b->read_only) return -EROFS;
  int rc = check_range(b, NULL, bytes, offset);
  if (rc < 0 || bytes == 0) return rc;
  if (!b->is_block_device)
    return allocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  /* Stale contents are allowed afterwards, so the cheaper discard, not zeroing. */
  uint64_t range[2] = {offset, bytes};
  return ioctl(b->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static int truncate_to(int fd, uint64_t bytes) {
  int rc;
  do rc = ftruncate(fd, (off_t)bytes);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? -errno : 0;
}

static int file_resize(struct backing *b, uint64_t bytes, bool reserve) {
  if (b->is_block_device) return -EOPNOTSUPP;
  if (b->read_only) return -EROFS;
  if (!is_aligned(bytes, BLOCK_BYTES) || bytes > INT64_MAX) return -EINVAL;
  uint64_t before = b->bytes;
  int rc = truncate_to(b->fd, bytes);
  if (rc == 0 && reserve && bytes) rc = allocate(b->fd, 0, 0, bytes);
  if (rc < 0) {
    /* What was cut off is gone, but a file that could not grow is as long as before. */
    if (bytes > before) (void)truncate_to(b->fd, before);
    return rc;
  }
  __atomic_store_n(&b->bytes, bytes, __ATOMIC_RELEASE);
  return 0;
}

/* ---- Lock and close --------------------------------------------------------------------- */

static uint64_t now_ms(void) { return clock_now_ns(&clock_monotonic) / 1000000; }

/* The lock lies on a descriptor of its own: a ring keeps registered files open for a while after
 * its process has gone, and with them a lock on them. Where the file cannot be opened again
 * (an adopted descriptor without permission, no /proc) the lock is on the file's own. */
static int lock_fd(struct backing *b) {
  if (b->lock_fd >= 0) return b->lock_fd;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", b->fd);
  b->lock_fd = open(path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
  return b->lock_fd >= 0 ? b->lock_fd : b->fd;
}

/* The kernel's own blocking form has no timeout, so it is asked again and again. */
static int file_lock(struct backing *b, bool exclusive, uint32_t timeout_ms) {
  if (exclusive && b->read_only) return -EROFS;
  uint64_t end = now_ms() + timeout_ms;
  int fd = lock_fd(b);
  for (;;) {
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return -errno;
    if (now_ms() >= end) return -EBUSY;
    nanosleep(&(struct timespec){0, LOCK_PAUSE_MS * 1000000}, NULL);
  }
}

static void file_close(struct backing *b) {
  if (b->lock_fd >= 0) close(b->lock_fd);
  close(b->fd);
  free(b);
}

static const struct backing_ops file_ops = {
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .punch = file_punch,
    .resize = file_resize,
    .lock = file_lock,
    .close = file_close,
};

void backing_close(struct backing *b) {
  if (b) b->ops->close(b);
}

/* ---- Opening ---------------------------------------------------------------------------- */

static int device_bytes(int fd, uint64_t *bytes) {
  if (ioctl(fd, BLKGETSIZE64, bytes) < 0) return -errno;
  *bytes = round_down(*bytes, BLOCK_BYTES);
  return 0;
}

/* A file may have a part of a block at its end, which nobody can address. */
static int describe(struct backing *b) {
  struct stat st;
  if (fstat(b->fd, &st) < 0) return -errno;
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return -EINVAL;
  b->is_block_device = S_ISBLK(st.st_mode);
  b->device_id = b->is_block_device ? st.st_rdev : st.st_dev;
  b->numa_node = sysfs_numa_node("/sys", major(b->device_id), minor(b->device_id));
  if (b->is_block_device) return device_bytes(b->fd, &b->bytes);
  b->bytes = round_down((uint64_t)st.st_size, BLOCK_BYTES);
  return 0;
}

/* O_DIRECT is switched on here, not in open(): where it is refused, open() with O_CREAT fails
 * but leaves the new file behind. O_NONBLOCK goes: with it a ring may answer -EAGAIN instead of
 * waiting. O_NOATIME, which only the owner may set, saves each read a twentieth of its cost. */
static int set_direct(int fd, bool direct) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  flags &= ~(O_NONBLOCK | O_DIRECT);
  if (direct) flags |= O_DIRECT;
  if (fcntl(fd, F_SETFL, flags | O_NOATIME) == 0) return 0;
  if (errno != EPERM) return -errno;
  return fcntl(fd, F_SETFL, flags & ~O_NOATIME) < 0 ? -errno : 0;
}

static int choose_direct(const struct backing *b, bool buffered, const struct logger *logger) {
  int rc = set_direct(b->fd, !buffered);
  if (rc != -EINVAL || buffered) return rc;
  rc = set_direct(b->fd, false);
  if (rc == 0 && logger)
    log_line(logger, 1, "%s: direct I/O is refused here: through the page cache", b->name);
  return rc;
}

/* Takes the descriptor, also when it fails. */
static int adopt(struct backing **out, int fd, bool read_only, bool buffered, const char *name,
                 const struct logger *logger) {
  struct backing *b = calloc(1, sizeof *b);
  int rc = -ENOMEM;
  if (b) {
    b->ops = &file_ops;
    b->fd = fd;
    b->lock_fd = -1;
    b->read_only = read_only;
    snprintf(b->name, sizeof b->name, "%s", name);
    rc = describe(b);
  }
  if (rc == 0) rc = choose_direct(b, buffered, logger);
  if (rc < 0) {
    close(fd);
    free(b);
    return rc;
  }
  *out = b;
  return 0;
}

int backing_open_path(struct backing **b, const char *path, const struct backing_open *how,
                      const struct logger *logger) {
  struct stat st;
  /* Before open(), which would wait for the other end of a fifo and may start a device. */
  if (stat(path, &st) == 0) {
    if (S_ISDIR(st.st_mode)) return -EISDIR;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return -EINVAL;
  }
  int flags = O_CLOEXEC | O_NOCTTY | (how->read_only ? O_RDONLY : O_RDWR);
  if (how->create || how->exclusive_create) flags |= O_CREAT;
  if (how->exclusive_create) flags |= O_EXCL;
  int fd;
  do fd = open(path, flags, 0600);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  return adopt(b, fd, how->read_only, how->buffered, path, logger);
}

int backing_open_fd(struct backing **b, int fd, bool read_only, const struct logger *logger) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  int mode = flags & O_ACCMODE;
  if ((flags & O_PATH) || mode == O_WRONLY || (!read_only && mode != O_RDWR)) return -EBADF;
  if (flags & O_APPEND) return -EINVAL; /* would write at the end, whatever the offset */
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return -errno;
  char name[64];
  snprintf(name, sizeof name, "descriptor %d", fd);
  return adopt(b, own, read_only, false, name, logger);
}
