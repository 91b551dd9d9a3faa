/* guest.c - the only process of a guest whose disk is logged: /init of its initial RAM disk.
 *
 *   guest raw|ext4 SEED SECONDS ENGINE RECORD_BYTES
 *
 * It runs the verifying writer on /dev/vda, or on a file system that begins there. All the time a
 * thread writes the ledger to byte RECORD_BYTES of the same disk, behind the store and the file
 * system, past every cache (O_DIRECT), never flushing. A disk log that has such a record has,
 * before it, everything that the record's promises rest on, since they had been made when it was
 * written; no clock and no second channel is needed to put promises and writes in order. At the end
 * the power goes: nothing is closed. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/writer.h"

#define DISK "/dev/vda"

struct recorder {
  struct ledger *l, *copy;
  int fd;
  off_t at;
  _Atomic bool stop;
};

static void power_off(const char *why) {
  printf("guest: %s\n", why);
  fflush(stdout);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static void must(bool good, const char *what) {
  if (good) return;
  printf("guest: %s: %s\n", what, strerror(errno));
  power_off("failed");
}

/* One module a line, in the order of their needs. */
static void load_modules(void) {
  char line[256];
  FILE *f = fopen("/modules", "r");
  must(f, "/modules");
  while (fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    int fd = open(line, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, line);
    must(syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST, line);
    close(fd);
  }
  fclose(f);
}

static void set_up(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mkdir("/mnt", 0755);
  must(mount("proc", "/proc", "proc", 0, NULL) == 0, "mount /proc");
  must(mount("sys", "/sys", "sysfs", 0, NULL) == 0, "mount /sys");
  must(mount("dev", "/dev", "devtmpfs", 0, NULL) == 0 || errno == EBUSY, "mount /dev");
  load_modules();
  for (int i = 0; i < 100 && access(DISK, F_OK); i++) usleep(50000);
  must(access(DISK, F_OK) == 0, DISK);
}

/* ---- Records ------------------------------------------------------------------------------------
 */

static void record(struct recorder *k) {
  struct ledger *to = k->copy;
  memcpy(to, k->l, offsetof(struct ledger, units));
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) {
    /* The promise first: what it rests on is then in `done` and `issued`, too. */
    atomic_store(&to->units[u].durable, atomic_load(&k->l->units[u].durable));
    atomic_store(&to->units[u].done, atomic_load(&k->l->units[u].done));
    atomic_store(&to->units[u].issued, atomic_load(&k->l->units[u].issued));
  }
  disks_copy(&to->disks, &k->l->disks);
  must(pwrite(k->fd, to, sizeof *to, k->at) == (ssize_t)sizeof *to, "write a record");
}

static void *run_recorder(void *arg) {
  struct recorder *k = arg;
  uint64_t acks = 0;
  for (uint32_t idle = 0; !atomic_load(&k->stop); idle++) {
    uint64_t now = atomic_load(&k->l->acks);
    if (now != acks || idle >= 20) {
      record(k);
      idle = 0;
    } else {
      usleep(500);
    }
    acks = now;
  }
  /* A cut is held against the second record behind it: the last cuts have theirs, too. */
  for (int i = 0; i < 3; i++) record(k);
  return NULL;
}

/* ---- The store ----------------------------------------------------------------------------------
 */

static const char *store_on_ext4(void) {
  must(mount(DISK, "/mnt", "ext4", 0, NULL) == 0, "mount " DISK);
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = UINT64_C(40) << 20;
  o.shards = 2;
  int r = sr_format("/mnt/store", &o);
  if (r) printf("guest: format: %s\n", strerror(-r));
  must(r == 0, "format");
  return "/mnt/store";
}

int main(int count, char **args) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  set_up();
  if (count < 6) power_off("too few arguments");
  struct writer_options o = {.engine = args[4],
                             .cores = 2,
                             .seed = strtoull(args[2], NULL, 0),
                             .seconds = (uint32_t)strtoul(args[3], NULL, 0)};
  o.where = strcmp(args[1], "ext4") == 0 ? store_on_ext4() : DISK;
  static struct ledger ledger;
  ledger_init(&ledger, o.seed);
  static _Alignas(4096) struct ledger copy;
  struct recorder k = {.l = &ledger, .copy = &copy};
  k.at = (off_t)strtoull(args[5], NULL, 0);
  k.fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
  must(k.fd >= 0, "open " DISK);
  pthread_t thread;
  must(pthread_create(&thread, NULL, run_recorder, &k) == 0, "thread");
  bool good = writer_run(&o, &ledger);
  atomic_store(&k.stop, true);
  pthread_join(thread, NULL);
  fsync(k.fd); /* the log's own superblock is written with a flush */
  printf("guest: %llu promises\n", (unsigned long long)ledger.acks);
  power_off(good ? "all is well" : "the writer failed");
}
