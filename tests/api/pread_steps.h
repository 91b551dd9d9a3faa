/* pread_steps.h - the tests of reads past a core step in by the linker: pread() of the thread that
 * reads is theirs, once. A program's own copy; each thread steps in for itself alone. */
#ifndef TESTS_API_PREAD_STEPS_H
#define TESTS_API_PREAD_STEPS_H

#include <errno.h>
#include <sys/types.h>

typedef void step_in(void *arg);
static _Thread_local step_in *before_pread, *after_pread;
static _Thread_local void *pread_arg;
static _Thread_local int pread_errno;
static _Thread_local char *pread_buf;

ssize_t __real_pread64(int fd, void *buf, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off_t offset) {
  step_in *before = before_pread, *after = after_pread;
  before_pread = after_pread = NULL;
  if (before) before(pread_arg);
  if (pread_errno) {
    errno = pread_errno;
    return -1;
  }
  ssize_t n = __real_pread64(fd, buf, bytes, offset);
  pread_buf = buf;
  if (after) after(pread_arg);
  return n;
}

#endif
