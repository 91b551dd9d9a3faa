/* host_sandbox.c - see host_sandbox.h: users and landlock; host_seccomp.c has the system calls. */
#include "tools/host_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Landlock -------------------------------------------------------------------------------- */

/* The kernel's numbers; headers of the build may be older than the kernel that it runs on. */
enum {
  FS_V1 = (1 << 13) - 1, /* execute ... make_sym */
  FS_REFER = 1 << 13,    /* since ABI 2 */
  FS_TRUNCATE = 1 << 14, /* since 3 */
  FS_IOCTL_DEV = 1 << 15 /* since 5 */
};
enum { NET_TCP = 3 }; /* bind, connect; since 4 */

#define READ_FILE (LANDLOCK_ACCESS_FS_READ_FILE)
#define READ_TREE (READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define USE_FILE  (READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define USE_TREE                                                                                   \
  (USE_FILE | READ_TREE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define SOCKET_TREE                                                                                \
  (READ_TREE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_SOCK |                      \
   LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define FILES_ONLY (USE_FILE | LANDLOCK_ACCESS_FS_EXECUTE)

struct ruleset {
  int fd;
  uint64_t handled;
};

struct attributes {
  uint64_t fs, net;
};

static int begin(struct ruleset *set) {
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return errno == EOPNOTSUPP ? -ENOSYS : -errno;
  struct attributes a = {FS_V1, 0};
  if (abi >= 2) a.fs |= FS_REFER;
  if (abi >= 3) a.fs |= FS_TRUNCATE;
  if (abi >= 5) a.fs |= FS_IOCTL_DEV;
  if (abi >= 4) a.net = NET_TCP;
  set->handled = a.fs;
  set->fd = (int)syscall(SYS_landlock_create_ruleset, &a, abi >= 4 ? sizeof(a) : sizeof(a.fs), 0);
  return set->fd < 0 ? -errno : 0;
}

static int allow_fd(const struct ruleset *set, int fd, uint64_t access) {
  struct stat st;
  struct landlock_path_beneath_attr rule = {.parent_fd = fd};
  if (fstat(fd, &st) < 0) return -errno;
  rule.allowed_access = access & set->handled & (S_ISDIR(st.st_mode) ? ~UINT64_C(0) : FILES_ONLY);
  if (syscall(SYS_landlock_add_rule, set->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
    return -errno;
  return 0;
}

static int allow(const struct ruleset *set, const char *path, uint64_t access) {
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) return -errno;
  int r = allow_fd(set, fd, access);
  close(fd);
  return r;
}

/* What the store's cores and the C library look up. Whatever is missing is not needed. */
static void allow_system(const struct ruleset *set) {
  static const char *const trees[] = {"/proc", "/sys", "/etc/localtime", "/usr/share/zoneinfo",
                                      "/dev/urandom"};
  for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) allow(set, trees[i], READ_TREE);
  allow(set, "/dev/null", USE_FILE);
}

/* One part of a store: a directory, a device, a file, an open descriptor. */
static int allow_part(const struct ruleset *set, const char *part) {
  if (strncmp(part, "fd:", 3) == 0) {
    /* Only for opening it a second time, to lock it; the store works without. */
    allow_fd(set, (int)strtol(part + 3, NULL, 10), USE_FILE);
    return 0;
  }
  return allow(set, part, USE_TREE);
}

static int allow_store(const struct ruleset *set, const char *store, char *part, size_t bytes) {
  if (strncmp(store, "mem:", 4) == 0) return 0;
  for (;;) {
    size_t n = strcspn(store, ",");
    snprintf(part, bytes, "%.*s", (int)n, store);
    int r = allow_part(set, part);
    if (r < 0 || !store[n]) return r;
    store += n + 1;
  }
}

static int allow_all(const struct ruleset *set, const struct host_paths *p, char *part,
                     size_t bytes) {
  allow_system(set);
  int r = allow_store(set, p->store, part, bytes);
  if (r < 0) return r;
  snprintf(part, bytes, "%s", p->socket_dir);
  r = allow(set, part, SOCKET_TREE);
  if (r == 0 && p->control) {
    const char *slash = strrchr(p->control, '/');
    snprintf(part, bytes, "%.*s", slash ? (int)(slash - p->control) + 1 : 1,
             slash ? p->control : ".");
    r = allow(set, part, SOCKET_TREE);
  }
  if (r == 0 && p->file_dir) {
    snprintf(part, bytes, "%s", p->file_dir);
    r = allow(set, part, USE_FILE | READ_TREE);
  }
  if (r == 0 && *p->memory_dir) {
    snprintf(part, bytes, "%s", p->memory_dir);
    r = allow(set, part, USE_TREE);
  }
  return r;
}

int host_sandbox_paths(const struct host_paths *paths, const char **bad) {
  static char part[4096];
  struct ruleset set;
  *bad = "landlock";
  int r = begin(&set);
  if (r < 0) return r;
  r = allow_all(&set, paths, part, sizeof(part));
  if (r < 0) {
    *bad = part;
    /* ENOSYS is what a kernel without landlock answers, and nothing else. */
    if (r == -ENOSYS) r = -EIO;
  } else if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
             syscall(SYS_landlock_restrict_self, set.fd, 0) < 0) {
    r = -errno;
  }
  close(set.fd);
  return r;
}

/* ---- Users ----------------------------------------------------------------------------------- */

int host_find_user(const char *name, struct host_user *user) {
  *user = (struct host_user){.name = name, .uid = (uid_t)-1, .gid = (gid_t)-1};
  if (!name) return 0;
  errno = 0;
  const struct passwd *p = getpwnam(name);
  if (!p) return -ENOENT;
  user->uid = p->pw_uid;
  user->gid = p->pw_gid;
  return 0;
}

int host_drop_user(const struct host_user *user) {
  if (!user->name || (user->uid == geteuid() && user->gid == getegid())) return 0;
  /* The C library does these for all threads. */
  if (initgroups(user->name, user->gid) < 0) return -errno;
  if (setresgid(user->gid, user->gid, user->gid) < 0) return -errno;
  if (setresuid(user->uid, user->uid, user->uid) < 0) return -errno;
  if (user->uid != 0 && setuid(0) == 0) return -EPERM; /* there is a way back */
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

void host_raise_limits(void) {
  struct rlimit l;
  if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
  }
  l = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &l) < 0 && getrlimit(RLIMIT_MEMLOCK, &l) == 0) {
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &l);
  }
}
