/* sysfs.c - the NUMA node of a block device, from sysfs. No state; any thread.
 *
 * /sys/dev/block/MAJOR:MINOR leads to the device's own directory; the node stands in a file
 * numa_node of one of its parents: the controller of a disk, the disk of a partition. A stacked
 * device (dm, md) has no controller; its parts are under slaves/, and it has a node if they all
 * agree. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/device/engine.h"

#define STACK_DEPTH_MAX 4

static int read_node(const char *directory) {
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/numa_node", directory);
  FILE *f = fopen(path, "re");
  if (!f) return -1;
  int node = -1;
  if (fscanf(f, "%d", &node) != 1 || node < 0) node = -1;
  fclose(f);
  return node;
}

static int node_of_parents(char *directory, const char *top) {
  size_t top_length = strlen(top);
  while (strlen(directory) > top_length) {
    int node = read_node(directory);
    if (node >= 0) return node;
    *strrchr(directory, '/') = '\0';
  }
  return -1;
}

static int node_of_directory(char *directory, const char *top, int depth);

static int node_of_slaves(const char *directory, const char *top, int depth) {
  char path[PATH_MAX + 16], part[2 * PATH_MAX], real[PATH_MAX];
  snprintf(path, sizeof path, "%s/slaves", directory);
  DIR *d = opendir(path);
  if (!d) return -1;
  int node = -1;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    snprintf(part, sizeof part, "%s/%s", path, e->d_name);
    int of_part = realpath(part, real) ? node_of_directory(real, top, depth + 1) : -1;
    if (of_part < 0 || (node >= 0 && node != of_part)) {
      node = -1;
      break;
    }
    node = of_part;
  }
  closedir(d);
  return node;
}

static int node_of_directory(char *directory, const char *top, int depth) {
  int node = depth < STACK_DEPTH_MAX ? node_of_slaves(directory, top, depth) : -1;
  return node >= 0 ? node : node_of_parents(directory, top);
}

int sysfs_numa_node(const char *sys, unsigned major, unsigned minor) {
  char path[PATH_MAX], top[PATH_MAX], directory[PATH_MAX];
  snprintf(path, sizeof path, "%s/dev/block/%u:%u", sys, major, minor);
  if (!realpath(sys, top) || !realpath(path, directory)) return -1;
  if (strncmp(directory, top, strlen(top)) != 0) return -1;
  return node_of_directory(directory, top, 0);
}
