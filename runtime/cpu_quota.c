/* cpu_quota.c - reads the cgroup's CPU quota. Any thread, no state.
 *
 * /proc/self/cgroup has a line "number:controllers:path" for each hierarchy; version 2 is
 * number 0 with no controllers. A container often sees a path that its own mount does not
 * hold; the files that are missing are passed over on the way up, and the mount's root, which
 * then stands for the container, is read last. */
#include "runtime/cpu_quota.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shards/base/base.h"

/* The first line of <dir>/<name>, without its newline. */
static bool read_line(const char *dir, const char *name, char *line, int size) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/%s", dir, name);
  if (n < 0 || (size_t)n >= sizeof path) return false;
  FILE *file = fopen(path, "re");
  if (!file) return false;
  bool got = fgets(line, size, file) != NULL;
  fclose(file);
  if (got) line[strcspn(line, "\n")] = 0;
  return got;
}

/* "max 100000" does not scan; nor does version 1's -1 for "none" pass. */
static uint32_t cpus_of(int64_t quota_us, int64_t period_us) {
  if (quota_us <= 0 || period_us <= 0) return 0;
  return (uint32_t)min_u64(div_up((uint64_t)quota_us, (uint64_t)period_us), UINT32_MAX);
}

static uint32_t quota_v2(const char *dir) {
  char line[64];
  int64_t quota = 0, period = 0;
  if (!read_line(dir, "cpu.max", line, sizeof line)) return 0;
  if (sscanf(line, "%" SCNd64 " %" SCNd64, &quota, &period) != 2) return 0;
  return cpus_of(quota, period);
}

static uint32_t quota_v1(const char *dir) {
  char line[64];
  int64_t quota = 0, period = 0;
  if (!read_line(dir, "cpu.cfs_quota_us", line, sizeof line)) return 0;
  if (sscanf(line, "%" SCNd64, &quota) != 1) return 0;
  if (!read_line(dir, "cpu.cfs_period_us", line, sizeof line)) return 0;
  if (sscanf(line, "%" SCNd64, &period) != 1) return 0;
  return cpus_of(quota, period);
}

/* 0 is "none" */
static uint32_t smaller(uint32_t a, uint32_t b) {
  if (a == 0 || b == 0) return a + b;
  return a < b ? a : b;
}

/* The smallest quota on the way from <mount><group> up to <mount>. */
static uint32_t quota_upwards(const char *mount, const char *group,
                              uint32_t (*quota_at)(const char *dir)) {
  char dir[PATH_MAX];
  int n = snprintf(dir, sizeof dir, "%s%s", mount, group);
  if (n < 0 || (size_t)n >= sizeof dir) return 0;
  size_t root = strlen(mount);
  uint32_t quota = 0;
  for (;;) {
    quota = smaller(quota, quota_at(dir));
    if (strlen(dir) <= root) return quota;
    char *slash = strrchr(dir, '/');
    *((size_t)(slash - dir) < root ? dir + root : slash) = 0;
  }
}

static bool names_cpu(const char *controllers) {
  const size_t length = strlen("cpu");
  for (const char *at = controllers; *at;) {
    size_t n = strcspn(at, ",");
    if (n == length && !memcmp(at, "cpu", length)) return true;
    at += n + (at[n] == ',');
  }
  return false;
}

/* One line of /proc/self/cgroup. */
static uint32_t quota_of_line(const char *sysroot, char *line) {
  char *controllers = strchr(line, ':');
  char *group = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!group) return 0;
  *controllers++ = 0;
  *group++ = 0;
  char mount[PATH_MAX];
  uint32_t quota = 0;
  /* Version 2 alone, then beside version 1; version 1 with its two usual names. */
  const char *const names[] = {"", "/unified", "/cpu", "/cpu,cpuacct"};
  bool v2 = !strcmp(line, "0") && !*controllers;
  if (!v2 && !names_cpu(controllers)) return 0;
  for (size_t i = v2 ? 0 : 2; i < (v2 ? 2 : array_size(names)); i++) {
    int n = snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", sysroot, names[i]);
    if (n < 0 || (size_t)n >= sizeof mount) return 0;
    quota = smaller(quota, quota_upwards(mount, group, v2 ? quota_v2 : quota_v1));
  }
  return quota;
}

uint32_t cpu_quota_read(const char *sysroot) {
  char path[PATH_MAX], line[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/proc/self/cgroup", sysroot);
  if (n < 0 || (size_t)n >= sizeof path) return 0;
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  uint32_t quota = 0;
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    quota = smaller(quota, quota_of_line(sysroot, line));
  }
  fclose(file);
  return quota;
}
