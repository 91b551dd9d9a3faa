/* survivors_list.c - what killed processes have left in a memory file system, as somebody who looks
 * from outside sees it. See survivors.h. Any thread; no store need be open. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/survivors.h"

static void say_nothing(void *arg, int level, const char *line) {
  (void)arg, (void)level, (void)line;
}

/* A store with a part that cannot be read now is one: it may be put right, and opened then. */
static bool is_a_store(const char *where) {
  char path[SURVIVORS_WHERE_BYTES + 32];
  snprintf(path, sizeof path, "%s/root", where);
  return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* The place may be another store's by now, or nobody's. */
static enum survivors_state state_of(const struct survivors_left *f) {
  const struct logger silent = {.line = say_nothing};
  struct layout *l;
  struct stat st;
  if (*f->where != '/') return SURVIVORS_UNKNOWN;
  if (stat(f->where, &st) < 0)
    return errno == ENOENT || errno == ENOTDIR ? SURVIVORS_GONE : SURVIVORS_UNKNOWN;
  if (!is_a_store(f->where)) return SURVIVORS_GONE;
  int r = layout_open(&l, f->where, true, 0, 1, &silent);
  if (r < 0) return SURVIVORS_NEEDED; /* locked, or damaged, or parts of it are elsewhere */
  bool same = memcmp(l->uuid, f->uuid, sizeof l->uuid) == 0;
  layout_close(l);
  return same ? SURVIVORS_NEEDED : SURVIVORS_GONE;
}

/* The descriptor: nobody else has the file in use, and who tries meanwhile fails. */
static int look(const char *dir, const char *name, struct survivors_left *f) {
  struct stat st;
  *f = (struct survivors_left){.state = SURVIVORS_USED};
  int n = snprintf(f->path, sizeof f->path, "%s/%s", dir, name);
  int fd = n < (int)sizeof f->path ? open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
  if (fd < 0) return -1;
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < BLOCK_BYTES) goto no;
  void *at = mmap(NULL, BLOCK_BYTES, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) goto no;
  bool ours = survivors_read_head(at, f->uuid, f->where);
  munmap(at, BLOCK_BYTES);
  if (!ours) goto no;
  f->bytes = (uint64_t)st.st_size;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) f->state = state_of(f);
  return fd;
no:
  close(fd);
  return -1;
}

/* Nobody has put another one in its place. */
static bool is_still(int fd, const char *path) {
  struct stat a, b;
  return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int survivors_each(const char *dir, bool (*fn)(void *arg, const struct survivors_left *left),
                   void *arg) {
  DIR *d = opendir(dir);
  int r = d ? 0 : -errno;
  for (struct dirent *e; d && (e = readdir(d));) {
    struct survivors_left f;
    if (strncmp(e->d_name, SURVIVORS_NAME, strlen(SURVIVORS_NAME)) != 0) continue;
    int fd = look(dir, e->d_name, &f);
    if (fd < 0) continue;
    if (fn(arg, &f) && f.state == SURVIVORS_GONE && is_still(fd, f.path) && unlink(f.path) < 0 &&
        !r)
      r = -errno;
    close(fd);
  }
  if (d) closedir(d);
  return r;
}
