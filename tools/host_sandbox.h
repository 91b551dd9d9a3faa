/* host_sandbox.h - what the daemon gives up, in this order:
 *
 *   host_sandbox_paths()  before the first thread is started: files but those it needs (landlock)
 *   host_drop_user()      after the store has been opened: being root
 *   host_sandbox_calls()  when all threads run: system calls that it never makes (seccomp) */
#ifndef TOOLS_HOST_SANDBOX_H
#define TOOLS_HOST_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

struct host_paths {
  const char *store;      /* as in sr_store_open() */
  const char *socket_dir; /* sockets are made, changed and removed there */
  const char *control;    /* its directory, likewise; may be NULL */
  const char *file_dir;   /* files there are opened; may be NULL */
  const char *memory_dir; /* as in sr_open_options; may be "" */
};
/* The calling thread and all that it starts from now on can open nothing but these, /proc, /sys and
 * a few devices, and can open no TCP connection or port. 0; -ENOSYS: the kernel has no landlock;
 * the name of the path that is not there in *bad (a static buffer), with its error. */
int host_sandbox_paths(const struct host_paths *paths, const char **bad);
/* All threads of the process. Calls that are not expected fail with EPERM; those that only an
 * intruder makes (execve, ptrace, mount ...) end the process. -ENOSYS: not in this build. */
int host_sandbox_calls(void);

struct host_user {
  const char *name; /* NULL: stay who we are */
  uid_t uid;
  gid_t gid;
};
/* -ENOENT: there is no such user. */
int host_find_user(const char *name, struct host_user *user);
/* All threads become that user, without a way back. Locked memory and descriptors stay as many as
 * were allowed: see host_raise_limits(). */
int host_drop_user(const struct host_user *user);
/* As many descriptors as the system allows, as much locked memory as there is if we are root. */
void host_raise_limits(void);

#endif
