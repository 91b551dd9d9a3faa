/* bench_env.c - what machine, kernel, device and engine a figure belongs to. Main thread. What
 * cannot be found out stays empty. */
#include "tools/bench.h"

#include <dirent.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

static void read_line(const char *path, char *text, size_t bytes) {
  FILE *f = fopen(path, "re");
  if (!f) return;
  if (fgets(text, (int)bytes, f)) text[strcspn(text, "\n")] = 0;
  fclose(f);
}

static void read_cpu_model(char *text, size_t bytes) {
  char line[512];
  FILE *f = fopen("/proc/cpuinfo", "re");
  while (f && fgets(line, sizeof(line), f)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    colon[strcspn(colon, "\n")] = 0;
    snprintf(text, bytes, "%s", colon + 2);
    break;
  }
  if (f) fclose(f);
}

/* "[none] mq-deadline" to "none" */
static void pick_bracketed(char *text) {
  char *open = strchr(text, '['), *close = strchr(text, ']');
  if (!open || !close || close < open) return;
  *close = 0;
  memmove(text, open + 1, strlen(open + 1) + 1);
}

static void read_queue(struct bench_environment *e, const char *directory) {
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%.4000s/queue/scheduler", directory);
  read_line(path, e->scheduler, sizeof(e->scheduler));
  pick_bracketed(e->scheduler);
  snprintf(path, sizeof(path), "%.4000s/queue/write_cache", directory);
  read_line(path, e->write_cache, sizeof(e->write_cache));
  snprintf(path, sizeof(path), "%.4000s/queue/fua", directory);
  read_line(path, e->fua, sizeof(e->fua));
}

static void read_device(struct bench_environment *e, const char *where) {
  char first[PATH_MAX], link[64], directory[PATH_MAX], queue[PATH_MAX + 16];
  struct stat st;
  struct statfs fs;
  snprintf(first, sizeof(first), "%.*s", (int)strcspn(where, ","), where);
  if (stat(first, &st) < 0) return;
  if (!S_ISBLK(st.st_mode) && statfs(first, &fs) == 0)
    snprintf(e->file_system, sizeof(e->file_system), "0x%lx", (unsigned long)fs.f_type);
  if (e->file_system[0] && fs.f_type == 0xef53)
    snprintf(e->file_system, sizeof(e->file_system), "ext4");
  if (e->file_system[0] && fs.f_type == 0x58465342)
    snprintf(e->file_system, sizeof(e->file_system), "xfs");
  dev_t dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
  snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
  if (!realpath(link, directory)) return;
  snprintf(queue, sizeof(queue), "%s/queue", directory);
  char *slash = strrchr(directory, '/');
  snprintf(e->device, sizeof(e->device), "%.60s", slash ? slash + 1 : "");
  if (access(queue, F_OK) < 0 && slash) *slash = 0; /* a partition: its disk has the queue */
  read_queue(e, directory);
}

static void read_engine(struct bench_environment *e, struct bench *b) {
  struct sr_store_stats store;
  struct sr_core_stats core;
  if (!b->port || sr_store_stats(b->port, &store) < 0) return;
  snprintf(e->why_engine, sizeof(e->why_engine), "%s", store.why_engine);
  e->fallback = store.engine_fallback;
  for (uint32_t i = 0; i < b->cores; i++) {
    if (sr_core_stats(b->port, i, &core) < 0) continue;
    if (i == 0) {
      snprintf(e->engine, sizeof(e->engine), "%s", core.engine);
      snprintf(e->ring_flags, sizeof(e->ring_flags), "%s", core.ring_flags);
      e->buffers_registered = core.buffers_registered;
      e->files_registered = core.files_registered;
      e->io_workers = core.io_workers;
    }
    e->device_submits += core.device_submits;
    e->device_ios += core.device_ios;
  }
}

void bench_environment_fill(struct bench_environment *e, struct bench *b) {
  struct utsname u;
  cpu_set_t set;
  *e = (struct bench_environment){0};
  if (uname(&u) == 0) snprintf(e->kernel, sizeof(e->kernel), "%.30s %.90s", u.sysname, u.release);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) e->cpus = (uint32_t)CPU_COUNT(&set);
  read_cpu_model(e->cpu_model, sizeof(e->cpu_model));
  if (b->o.device != DEVICE_MEM) read_device(e, b->o.where_text);
  read_engine(e, b);
}
