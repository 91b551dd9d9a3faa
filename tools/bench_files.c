/* bench_files.c - which bytes the raw loop reads or writes. Main thread.
 *
 * Reads: the store's own files, behind the part that holds identities and logs (written even
 * where data is not), and only as far as blobs lie. Writes: a nameless scratch file in the same
 * directory, written once beforehand, as the store's own regions are. */
#include "tools/bench.h"
#include "tools/progress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB UINT64_C(1048576)

static int add(struct bench_files *f, const char *path) {
  if (f->count == RAW_LOOP_FILES_MAX) return 0; /* enough for a ceiling */
  f->paths[f->count] = strdup(path);
  if (!f->paths[f->count]) return -ENOMEM;
  f->count++;
  return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_packed(const struct dirent *d) { return strncmp(d->d_name, "shard-", 6) == 0; }

static int add_directory(struct bench_files *f, const char *directory) {
  struct dirent **names = NULL;
  int r = 0, n = scandir(directory, &names, is_packed, by_name);
  if (n < 0) return -errno;
  for (int i = 0; i < n; i++) {
    char path[8192];
    snprintf(path, sizeof(path), "%s/%s", directory, names[i]->d_name);
    if (r == 0) r = add(f, path);
    free(names[i]);
  }
  free(names);
  return r < 0 ? r : f->count > 0 ? 0 : -ENOENT;
}

static int add_devices(struct bench_files *f, const char *where) {
  char list[4096], *rest = list, *one;
  int r = 0;
  snprintf(list, sizeof(list), "%s", where);
  while (r == 0 && (one = strsep(&rest, ","))) {
    char path[4096];
    if (strncmp(one, "fd:", 3) == 0)
      snprintf(path, sizeof(path), "/proc/self/fd/%s", one + 3);
    else
      snprintf(path, sizeof(path), "%s", one);
    r = add(f, path);
  }
  return r;
}

static bool is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static uint64_t round_mib(uint64_t v) { return (v + MIB - 1) / MIB * MIB; }

/* Where blobs lie in each file, as near as the statistics say. */
static void set_span(struct bench_files *f, struct bench *b) {
  struct sr_store_stats stats;
  struct sr_space space;
  if (!b->port || sr_store_stats(b->port, &stats) < 0 || sr_space(b->port, &space) < 0) return;
  bool one_each = f->count == b->shards;
  uint64_t parts = one_each ? b->shards : f->count;
  f->skip_bytes = round_mib(stats.log_bytes / parts + MIB);
  if (bench_is_hollow(&b->o)) {
    /* All that follows is as unwritten as the blobs are; the last block is an identity. */
    f->span_bytes = (space.total_bytes / parts) / MIB * MIB;
    f->span_bytes -= f->span_bytes > 8 * MIB ? 4 * MIB : 0;
  } else {
    uint64_t volumes = b->o.engine == ENGINE_VOLUME ? b->o.volumes * b->o.volume_bytes : 0;
    f->span_bytes = round_mib((space.live_bytes + volumes) / parts);
  }
}

/* Written whole, in order: as the store's own regions are before they are used. */
static int write_scratch(int fd, uint64_t bytes) {
  struct progress p;
  void *buf;
  if (posix_memalign(&buf, 4096, MIB)) return -ENOMEM;
  memset(buf, 0x5a, MIB);
  int r = posix_fallocate(fd, 0, (off_t)bytes) ? -ENOSPC : 0;
  progress_begin(&p, "scratch file");
  for (uint64_t at = 0; r == 0 && at < bytes; at += MIB) {
    if (pwrite(fd, buf, MIB, (off_t)at) != (ssize_t)MIB) r = errno ? -errno : -EIO;
    progress_step(&p, at, bytes);
  }
  progress_end(&p);
  if (r == 0 && fdatasync(fd) < 0) r = -errno;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  free(buf);
  return r;
}

static int make_scratch(struct bench_files *f, struct bench *b) {
  char path[64];
  if (!is_directory(b->o.where_text)) {
    fputs("shard-bench: raw writes need a directory for their scratch file: they would destroy "
          "a store on devices; use --store=DIR\n",
          stderr);
    return -EINVAL;
  }
  uint64_t bytes = b->o.blobs_given || b->store ? b->o.blobs * b->o.blob_bytes : b->o.size_bytes;
  if (b->o.engine == ENGINE_VOLUME) bytes = b->o.volumes * b->o.volume_bytes;
  if (bytes == 0) bytes = 1024 * MIB;
  if (bytes < 64 * MIB) bytes = 64 * MIB;
  f->scratch_fd = open(b->o.where_text, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  int r = f->scratch_fd < 0 ? -errno : write_scratch(f->scratch_fd, round_mib(bytes));
  if (r < 0) return bench_fail("scratch file for raw writes", r);
  snprintf(path, sizeof(path), "/proc/self/fd/%d", f->scratch_fd);
  return add(f, path);
}

int bench_files_find(struct bench_files *f, struct bench *b) {
  *f = (struct bench_files){.scratch_fd = -1};
  if (bench_is_write(b->o.rw)) return make_scratch(f, b);
  int r = is_directory(b->o.where_text) ? add_directory(f, b->o.where_text)
                                        : add_devices(f, b->o.where_text);
  if (r < 0) return bench_fail(b->o.store, r);
  set_span(f, b);
  return 0;
}

void bench_files_free(struct bench_files *f) {
  for (uint32_t i = 0; i < f->count; i++) free(f->paths[i]);
  if (f->scratch_fd >= 0) close(f->scratch_fd);
  *f = (struct bench_files){.scratch_fd = -1};
}
