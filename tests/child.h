/* child.h - the end of a forked child of a test: at once, as _exit(), but what it has reached
 * counts for tests/coverage. */
#ifndef TESTS_CHILD_H
#define TESTS_CHILD_H

#include <unistd.h>

void __gcov_dump(void) __attribute__((weak)); /* there only in a build for coverage */

_Noreturn static inline void child_exit(int status) {
  if (__gcov_dump) __gcov_dump();
  _exit(status);
}

#endif
