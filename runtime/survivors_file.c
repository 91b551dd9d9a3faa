/* survivors_file.c - survivors in a file of a memory file system, named after the store; the new
 * one has ".next" behind its name until it takes the place. See survivors.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "runtime/survivors.h"

#define DIRECTORY "/dev/shm"
/* All of it is reserved: a memory file system that runs full would kill us. */
#define BYTES_MAX (UINT64_C(512) << 20)

struct file_place {
  struct survivors_place place;
  const struct logger *logger;
  bool keeps, settled;
  uint64_t bytes;
  void *found, *made;
  int fd; /* of the new one: locked, so that it is seen to be in use; -1 */
  char path[300], next_path[310];
};

static struct file_place *file_of(struct survivors_place *p) {
  return container_of(p, struct file_place, place);
}

/* Nobody else could have written it, and no reboot has seen it. */
static bool is_ours(int fd, uint64_t bytes) {
  struct stat st;
  struct statfs fs;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
         !(st.st_mode & 077) && (uint64_t)st.st_size == bytes && fstatfs(fd, &fs) == 0 &&
         fs.f_type == TMPFS_MAGIC;
}

static void *file_find(struct survivors_place *p, uint64_t bytes) {
  struct file_place *f = file_of(p);
  f->bytes = bytes;
  int fd = open(f->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return NULL;
  void *at = is_ours(fd, bytes) ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                                : MAP_FAILED;
  close(fd);
  if (at == MAP_FAILED)
    log_line(f->logger, 1, "%s: not a file of this user in memory: not used", f->path);
  else
    f->found = at;
  return f->found;
}

static void *file_make(struct survivors_place *p, uint64_t bytes) {
  struct file_place *f = file_of(p);
  if (!f->keeps) return NULL;
  if (bytes > BYTES_MAX) {
    log_line(f->logger, 1, "%s: too many shards to survive a killed process in memory", f->path);
    return NULL;
  }
  unlink(f->next_path);
  int fd = open(f->next_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  int r = fd < 0 || flock(fd, LOCK_EX) < 0 ? errno : posix_fallocate(fd, 0, (off_t)bytes);
  if (!r && !is_ours(fd, bytes)) r = EMEDIUMTYPE;
  void *at = r ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (!r && at == MAP_FAILED) r = errno;
  if (!r) {
    f->fd = fd;
    return f->made = at;
  }
  if (fd >= 0) close(fd);
  unlink(f->next_path);
  log_line(f->logger, 1, "%s: %s: what is not durable will not survive a killed process",
           f->next_path, r == EMEDIUMTYPE ? "not in a memory file system (tmpfs)" : strerror(r));
  return NULL;
}

static void file_settle(struct survivors_place *p) {
  struct file_place *f = file_of(p);
  if (f->found) munmap(f->found, f->bytes);
  f->found = NULL;
  if (!f->made) { /* what cannot be used is taken away as well */
    unlink(f->path);
    unlink(f->next_path);
    return;
  }
  f->settled = true;
  if (rename(f->next_path, f->path) < 0)
    log_line(f->logger, 1, "%s: %s: what is not durable will not survive a killed process", f->path,
             strerror(errno));
}

static void file_close(struct survivors_place *p) {
  struct file_place *f = file_of(p);
  if (f->made) unlink(f->settled ? f->path : f->next_path);
  if (f->found) munmap(f->found, f->bytes);
  if (f->made) munmap(f->made, f->bytes);
  if (f->fd >= 0) close(f->fd);
  free(f);
}

struct survivors_place *survivors_file_open(const char *dir, const struct layout *l,
                                            const struct logger *logger) {
  char uuid[33];
  struct file_place *f = dir && !*dir ? NULL : calloc(1, sizeof *f);
  if (!f) return NULL;
  for (int i = 0; i < 16; i++) snprintf(uuid + 2 * i, 3, "%02x", l->uuid[i]);
  f->place = (struct survivors_place){f->path, file_find, file_make, file_settle, file_close};
  f->logger = logger;
  f->keeps = dir != NULL;
  f->fd = -1;
  int n = snprintf(f->path, sizeof f->path, "%s/" SURVIVORS_NAME "%s", dir ? dir : DIRECTORY, uuid);
  snprintf(f->next_path, sizeof f->next_path, "%s.next", f->path);
  bool there = !access(f->path, F_OK) || !access(f->next_path, F_OK);
  if (n < (int)sizeof f->path && (f->keeps || there)) return &f->place;
  free(f);
  return NULL;
}
