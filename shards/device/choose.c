/* choose.c - which engine: by name, or the best that works here. Any thread. */
#include <stdio.h>
#include <string.h>

#include "shards/device/engine.h"

const struct device_ops *device_by_name(const char *name) {
  static const struct device_ops *const all[] = {&device_uring, &device_pool, &device_mem,
                                                 &device_null};
  for (size_t i = 0; name && i < array_size(all); i++)
    if (strcmp(all[i]->name, name) == 0) return all[i];
  return NULL;
}

static const char *likely_cause(int rc) {
  switch (rc) {
  case -EPERM:
    return "a seccomp filter or sysctl kernel.io_uring_disabled";
  case -ENOSYS:
    return "a seccomp filter or a kernel that is too old";
  case -ENOMEM:
    return "the memory limit";
  case -EMFILE:
  case -ENFILE:
    return "too many open files";
  default:
    return "unknown cause";
  }
}

const struct device_ops *device_choose(char *why, size_t why_bytes) {
  int rc = uring_probe();
  if (rc == 0) {
    snprintf(why, why_bytes, "uring: io_uring works here");
    return &device_uring;
  }
  snprintf(why, why_bytes, "pool: io_uring_setup was refused: %s (%s)", strerror(-rc),
           likely_cause(rc));
  return &device_pool;
}
