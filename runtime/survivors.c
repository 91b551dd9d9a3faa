/* survivors.c - see survivors.h. */
#include "runtime/survivors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shards/survivor.h"

#define DIRECTORY "/dev/shm"
#define VERSION   1u
/* All of it is reserved: a memory file system that runs full would kill us. */
#define BYTES_MAX (UINT64_C(512) << 20)

struct head { /* one block */
  char magic[8];
  uint32_t version, shard_count;
  uint8_t uuid[16];
  uint64_t incarnation; /* of the root that this open has written; 0: not yet */
  uint32_t changing;    /* several shards at once: not to be used */
};
static const char magic[8] = "SRSURVIV";

struct survivors {
  const struct logger *logger;
  uint32_t shard_count;
  uint64_t bytes;
  struct head *left, *kept; /* NULL: none */
  char path[300], next_path[310];
};

static struct survivor *area(struct head *h, uint32_t shard) {
  return (struct survivor *)(void *)((char *)h + BLOCK_BYTES) + shard;
}

/* Nobody else could have written it, and no reboot has seen it. */
static bool is_ours(int fd, uint64_t bytes) {
  struct stat st;
  struct statfs fs;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
         !(st.st_mode & 077) && (uint64_t)st.st_size == bytes && fstatfs(fd, &fs) == 0 &&
         fs.f_type == TMPFS_MAGIC;
}

static bool fits(const struct head *h, const struct layout *l) {
  return !memcmp(h->magic, magic, sizeof magic) && h->version == VERSION &&
         h->shard_count == l->shard_count && !memcmp(h->uuid, l->uuid, sizeof h->uuid) &&
         h->incarnation && h->incarnation == l->root->incarnation;
}

static void find_left(struct survivors *s, const struct layout *l) {
  int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  void *at =
      is_ours(fd, s->bytes) ? mmap(NULL, s->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  close(fd);
  if (at == MAP_FAILED) {
    log_line(s->logger, 1, "%s: not a file of this user in memory: not used", s->path);
    return;
  }
  struct head *h = at;
  if (fits(h, l) && !h->changing) {
    s->left = h;
    return;
  }
  if (fits(h, l))
    log_line(s->logger, 1,
             "%s: the process before was killed in the middle of a change of several shards: the "
             "store goes on from its last durable state",
             s->path);
  munmap(at, s->bytes);
}

static void make_new(struct survivors *s, const struct layout *l) {
  unlink(s->next_path);
  int fd = open(s->next_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  int r = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)s->bytes);
  if (!r && !is_ours(fd, s->bytes)) r = EMEDIUMTYPE;
  void *at = r ? MAP_FAILED : mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (!r && at == MAP_FAILED) r = errno;
  if (fd >= 0) close(fd);
  if (r) {
    unlink(s->next_path);
    log_line(s->logger, 1, "%s: %s: what is not durable will not survive a killed process",
             s->next_path, r == EMEDIUMTYPE ? "not in a memory file system (tmpfs)" : strerror(r));
    return;
  }
  s->kept = at;
  *s->kept = (struct head){.version = VERSION, .shard_count = s->shard_count};
  memcpy(s->kept->magic, magic, sizeof magic);
  memcpy(s->kept->uuid, l->uuid, sizeof s->kept->uuid);
}

struct survivors *survivors_open(const char *dir, const struct layout *l,
                                 const struct logger *logger) {
  char uuid[33];
  if (dir && !*dir) return NULL;
  struct survivors *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  for (int i = 0; i < 16; i++) snprintf(uuid + 2 * i, 3, "%02x", l->uuid[i]);
  s->logger = logger;
  s->shard_count = l->shard_count;
  s->bytes = BLOCK_BYTES + (uint64_t)l->shard_count * sizeof(struct survivor);
  int n = snprintf(s->path, sizeof s->path, "%s/shardring-%s", dir ? dir : DIRECTORY, uuid);
  snprintf(s->next_path, sizeof s->next_path, "%s.next", s->path);
  if (n < (int)sizeof s->path) find_left(s, l);
  if (dir && n < (int)sizeof s->path && s->bytes <= BYTES_MAX) make_new(s, l);
  if (dir && s->bytes > BYTES_MAX)
    log_line(logger, 1, "%u shards are too many to survive a killed process in memory",
             l->shard_count);
  /* What cannot be used is still taken away, once there is a root of our own. */
  if (s->left || s->kept || !access(s->path, F_OK) || !access(s->next_path, F_OK)) return s;
  free(s);
  return NULL;
}

const struct survivor *survivors_left(const struct survivors *s, uint32_t shard) {
  return s && s->left ? area(s->left, shard) : NULL;
}

struct survivor *survivors_keep(struct survivors *s, uint32_t shard) {
  return s && s->kept ? area(s->kept, shard) : NULL;
}

void survivors_settle(struct survivors *s, uint64_t incarnation) {
  if (!s) return;
  if (s->left) munmap(s->left, s->bytes);
  s->left = NULL;
  if (!s->kept) {
    unlink(s->path);
    unlink(s->next_path);
    return;
  }
  __atomic_store_n(&s->kept->incarnation, incarnation, __ATOMIC_RELEASE);
  if (rename(s->next_path, s->path) < 0)
    log_line(s->logger, 1, "%s: %s: what is not durable will not survive a killed process", s->path,
             strerror(errno));
}

void survivors_mark(struct survivors *s, bool changing) {
  if (s && s->kept) __atomic_store_n(&s->kept->changing, changing, __ATOMIC_SEQ_CST);
}

void survivors_close(struct survivors *s) {
  if (!s) return;
  if (s->kept) unlink(s->kept->incarnation ? s->path : s->next_path);
  if (s->left) munmap(s->left, s->bytes);
  if (s->kept) munmap(s->kept, s->bytes);
  free(s);
}
