/* nbd_pread.c - a plugin for nbdkit that does nothing but a direct pread() for each read, of one
 * file: what is to be had of this disk by a server that blocks a thread for each request. For
 * bench/nbd. Its threads share nothing but the descriptor. */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define BLOCK_BYTES 4096u
#define READ_BYTES  (64u << 10)

static const char *path;
static int fd = -1;

static int on_config(const char *key, const char *value) {
  if (strcmp(key, "file") != 0) {
    nbdkit_error("%s: only file= is known", key);
    return -1;
  }
  path = value;
  return 0;
}

static int get_ready(void) {
  fd = path ? open(path, O_RDONLY | O_DIRECT | O_NOATIME | O_CLOEXEC) : -1;
  if (fd < 0) nbdkit_error("file=%s: %s", path ? path : "", strerror(errno));
  return fd < 0 ? -1 : 0;
}

static void *on_open(int read_only) {
  (void)read_only;
  return &fd;
}

static int64_t get_size(void *handle) {
  struct stat st;
  (void)handle;
  return fstat(fd, &st) ? -1 : st.st_size / READ_BYTES * READ_BYTES;
}

/* nbdkit's buffer is not aligned. */
static int on_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  _Alignas(BLOCK_BYTES) char bounce[READ_BYTES];
  (void)handle, (void)flags;
  if (count > READ_BYTES || (count | offset) % BLOCK_BYTES) {
    nbdkit_set_error(EINVAL);
    return -1;
  }
  ssize_t n = pread(fd, bounce, count, (off_t)offset);
  if (n != (ssize_t)count) {
    nbdkit_set_error(n < 0 ? errno : EIO);
    return -1;
  }
  memcpy(buf, bounce, count);
  return 0;
}

static struct nbdkit_plugin plugin = {.name = "pread",
                                      .config = on_config,
                                      .get_ready = get_ready,
                                      .open = on_open,
                                      .get_size = get_size,
                                      .pread = on_pread};

NBDKIT_REGISTER_PLUGIN(plugin)
