/* power_cut.c - cuts the power of a disk whose writes were logged: for many moments of the log it
 * builds what the disk may hold after a cut then, opens the store on it and holds it against what
 * the writer was promised until then.
 *
 *   power_cut format IMAGE BYTES
 *   power_cut replay raw|ext4 BASE LOG RECORD_BYTES [--images=N] [--seed=N] [--forget-flushes]
 *
 * BASE is the disk before the first entry of LOG. What was written before a flush is there; of
 * what was written since then any part may be there: nothing, all, or a random part of the writes,
 * some of them torn. The ledger's records are writes of the same log (guest.c). At a cut,
 *   - what the last record before it promises must be there: that record was written after the
 *     answers to all that it promises;
 *   - no version may be there that is newer than what the second record behind the cut knows as
 *     issued: its copying began after the first record behind the cut had been written, so after
 *     everything before the cut had been issued.
 * The log's order is that of completion. A write that completed while a flush was on its way counts
 * as flushed here, though a disk does not owe that; no real loss is invented by it, but one may be
 * missed.
 *
 * --forget-flushes: a flush keeps nothing. That must be found, or the test proves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/internal.h"
#include "tests/crash/look.h"
#include "tests/crash/write_log.h"
#include "tests/random.h"

#define SECTOR         512u
#define FORGOTTEN_KEPT 24u /* flushes back that --forget-flushes takes for not done */

enum keep { KEEP_NOTHING, KEEP_ALL, KEEP_SOME, KEEPS };

struct cut {
  struct write_log log;
  struct random random;
  uint64_t images_wanted;
  bool ext4, forget, every_flush;
  char directory[256], image[300], store[300];
  int fd;
  /* The disk as far as it is certain; the image, a file in memory, is the same between two looks.
   */
  uint8_t *disk;
  uint64_t disk_bytes, record_at;
  uint64_t flushed;                    /* entries before it are in `disk` */
  uint64_t flushes_at[FORGOTTEN_KEPT]; /* the last flushes, for --forget-flushes */
  uint64_t *records, record_count;     /* entries that are records of the ledger */
  uint32_t tear_bytes;
  uint64_t images, flushes, findings, blobs, disks, torn_blocks, lost, promised, torn, dropped,
      kept;
};

static void die(const char *what, int error) {
  fprintf(stderr, "power_cut: %s: %s\n", what, strerror(error < 0 ? -error : error));
  exit(1);
}

static void write_image(const struct cut *c, const uint8_t *from, uint64_t at, uint64_t bytes) {
  while (bytes > 0) {
    ssize_t n = pwrite(c->fd, from, bytes, (off_t)at);
    if (n <= 0) die("write image", errno);
    from += n, at += (uint64_t)n, bytes -= (uint64_t)n;
  }
}

/* ---- What the disk holds ------------------------------------------------------------------------
 */

static bool in_disk(const struct cut *c, const struct write_entry *e) {
  return e->at <= c->disk_bytes && e->bytes <= c->disk_bytes - e->at;
}
static bool is_record(const struct cut *c, const struct write_entry *e) {
  return e->data && e->at >= c->record_at;
}

/* From now on every image has it. What a discard leaves is anybody's guess: zeros, here. */
static void make_certain(struct cut *c, const struct write_entry *e) {
  if (e->bytes == 0 || is_record(c, e)) return;
  if (e->data)
    memcpy(c->disk + e->at, e->data, e->bytes);
  else
    memset(c->disk + e->at, 0, e->bytes);
  write_image(c, c->disk + e->at, e->at, e->bytes);
}

static void put_part(struct cut *c, const struct write_entry *e, uint64_t from, uint64_t bytes) {
  static const uint8_t zeros[65536];
  if (e->data) {
    write_image(c, e->data + from, e->at + from, bytes);
    return;
  }
  for (uint64_t done = 0; done < bytes; done += sizeof zeros) {
    uint64_t n = bytes - done < sizeof zeros ? bytes - done : sizeof zeros;
    write_image(c, zeros, e->at + from + done, n);
  }
}

/* Some of the pieces of a write, at random. */
static void put_torn(struct cut *c, const struct write_entry *e) {
  c->torn++;
  for (uint64_t at = 0; at < e->bytes; at += c->tear_bytes) {
    uint64_t n = e->bytes - at < c->tear_bytes ? e->bytes - at : c->tear_bytes;
    if (random_below(&c->random, 2)) put_part(c, e, at, n);
  }
}

static void put_uncertain(struct cut *c, uint64_t end, enum keep keep) {
  for (uint64_t i = c->flushed; i < end; i++) {
    const struct write_entry *e = &c->log.entries[i];
    if (e->bytes == 0 || is_record(c, e)) continue;
    uint64_t dice = keep == KEEP_SOME ? random_below(&c->random, 10) : keep == KEEP_ALL ? 9 : 0;
    if (dice >= 5)
      put_part(c, e, 0, e->bytes), c->kept++;
    else if (dice >= 3 && !(e->flags & WRITE_FUA))
      put_torn(c, e);
    else if (e->flags & WRITE_FUA)
      put_part(c, e, 0, e->bytes);
    else
      c->dropped++;
  }
}

/* Is there anything that may or may not be there? */
static bool uncertain(const struct cut *c, uint64_t end) {
  for (uint64_t i = c->flushed; i < end; i++)
    if (c->log.entries[i].bytes && !is_record(c, &c->log.entries[i])) return true;
  return false;
}

static void take_back(struct cut *c, uint64_t end) {
  for (uint64_t i = c->flushed; i < end; i++) {
    const struct write_entry *e = &c->log.entries[i];
    if (e->bytes && !is_record(c, e)) write_image(c, c->disk + e->at, e->at, e->bytes);
  }
}

/* A flush at entry i: what came before it is certain. */
static void pass_flush(struct cut *c, uint64_t i) {
  uint64_t upto = i;
  if (c->forget) { /* only what was flushed long ago is */
    upto = c->flushes_at[c->flushes % FORGOTTEN_KEPT];
    c->flushes_at[c->flushes % FORGOTTEN_KEPT] = i;
  }
  c->flushes++;
  for (; c->flushed < upto; c->flushed++) make_certain(c, &c->log.entries[c->flushed]);
}

/* ---- Looks --------------------------------------------------------------------------------------
 */

/* What holds for a cut before entry `end`. False if there are no records around it. */
static bool ledger_at(const struct cut *c, uint64_t end, struct ledger *l, struct disks *disks) {
  uint64_t r = 0;
  while (r < c->record_count && c->records[r] < end) r++;
  if (r == 0 || r + 1 >= c->record_count) return false;
  const uint8_t *later = c->log.entries[c->records[r + 1]].data;
  memcpy(l, c->log.entries[c->records[r - 1]].data, sizeof *l);
  memcpy(disks, later + offsetof(struct ledger, disks), sizeof *disks);
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) {
    struct unit unit;
    memcpy(&unit, later + offsetof(struct ledger, units) + u * sizeof unit, sizeof unit);
    l->units[u].issued = unit.issued;
  }
  return true;
}

/* The file system's own recovery first, then the store's files out of it. No mount: that would
 * need a loop device and root. */
static bool extract_store(struct cut *c) {
  char command[3000];
  snprintf(
      command, sizeof command,
      "rm -rf '%s' && cp --sparse=always '%s' '%s.fs' && { e2fsck -fy '%s.fs'; [ $? -le 1 ]; } "
      ">'%s.out' 2>&1 && debugfs -R 'rdump /store %s' '%s.fs' >>'%s.out' 2>&1",
      c->store, c->image, c->image, c->image, c->image, c->directory, c->image, c->image);
  if (system(command) == 0) return true;
  snprintf(command, sizeof command, "cat '%s.out' >&2", c->image);
  if (system(command)) return false;
  return false;
}

/* The image as a file on a real disk, sparse. */
static void save_image(const struct cut *c) {
  static uint8_t chunk[65536];
  static const uint8_t zeros[65536];
  int fd = open(c->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, (off_t)c->disk_bytes)) die(c->image, errno);
  for (uint64_t at = 0; at < c->disk_bytes; at += sizeof chunk) {
    ssize_t n = pread(c->fd, chunk, sizeof chunk, (off_t)at);
    if (n <= 0) die("read image", errno);
    if (memcmp(chunk, zeros, (size_t)n) == 0) continue;
    if (pwrite(fd, chunk, (size_t)n, (off_t)at) != n) die(c->image, errno);
  }
  close(fd);
}

static void log_to_look(void *arg, int level, const char *line) {
  look_on_log(arg, (enum sr_log_level)level, line);
}

/* The image as a store in memory, in this thread. What the store writes goes to a copy that ends
 * with it. */
static int open_in_memory(struct cut *c, struct look *v, struct sr_store **out) {
  struct store_config config = {.core_count = 1,
                                .read_only = v->read_only,
                                .stepped = true,
                                .queue_depth = 64,
                                .poll_us = 50,
                                .arena_bytes = 1 << 20,
                                .seed = 1,
                                .logger = {log_to_look, v},
                                .engine_ops = &device_mem,
                                .local_finished = local_finished};
  struct backing *b;
  int r = backing_open_memory(&b, c->disk_bytes);
  if (r) die("memory", r);
  if (mmap(b->memory, c->disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, c->fd, 0) ==
      MAP_FAILED)
    die("mmap", errno);
  r = layout_open_backings(&config.layout, &b, 1, v->read_only, &config.logger);
  if (r) return r;
  struct store *s;
  r = store_open(&s, NULL, &config);
  if (r)
    layout_close(config.layout);
  else
    *out = (struct sr_store *)s;
  return r;
}

/* Most images are opened in memory, some as a file by the public way, those of a file system as
 * the files that it gives back. */
static void look_at(struct cut *c, struct ledger *l, struct look *v, struct found *found) {
  struct sr_store *s;
  if (c->ext4 || c->images % 16 == 0) {
    save_image(c);
    if (c->ext4 && !extract_store(c))
      v->findings++;
    else
      look_at_store(c->store, l, v, found);
    return;
  }
  int r = open_in_memory(c, v, &s);
  if (r)
    look_on_open_error(v, r);
  else
    look_at_open_store(s, l, v, found);
}

static uint64_t count_promises(const struct disk *d) {
  uint64_t promises = d->row.durable > 0;
  for (uint32_t u = 0; u < DISK_UNITS; u++) promises += d->units[u].row.durable > 0;
  return promises;
}

static void look_at_image(struct cut *c, uint64_t end, enum keep keep) {
  static struct ledger l;
  static struct disks later;
  static struct found found;
  if (!ledger_at(c, end, &l, &later)) return;
  put_uncertain(c, end, keep);
  struct look v = {.engine = "pool",
                   .cores = 1,
                   .read_only = c->images % 3 != 0,
                   /* A torn write of a root leaves a copy that a scrub rightly reports. */
                   .scrub = c->images % 16 == 0 && keep != KEEP_SOME,
                   .quiet = c->forget,
                   .torn_sectors = c->tear_bytes == SECTOR,
                   .later = &later};
  look_at(c, &l, &v, &found);
  if (v.findings && !c->forget)
    fprintf(stderr, "... cut before entry %" PRIu64 ", way %d, image %" PRIu64 "\n", end, keep,
            c->images);
  c->images++;
  c->findings += v.findings > 0;
  c->blobs += v.blobs;
  c->lost += v.lost;
  c->disks += v.disks;
  c->torn_blocks += v.torn;
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) c->promised += l.units[u].durable > 0;
  for (uint32_t d = 0; d < DISKS; d++) c->promised += count_promises(&l.disks.disks[d]);
  take_back(c, end);
}

/* Is the moment before entry i worth a look? Before every flush, when the most is uncertain; after
 * every flush; after every record, when a promise is the newest; some others. */
static bool is_point(const struct cut *c, uint64_t i) {
  const struct write_entry *e = &c->log.entries[i], *before = e - 1;
  return (e->flags & WRITE_FLUSH) || (before->flags & WRITE_FLUSH) || is_record(c, before) ||
         i % 16 == 0;
}

static void find_records(struct cut *c) {
  c->records = calloc(c->log.count + 1, sizeof *c->records);
  for (uint64_t i = 0; i < c->log.count; i++) {
    const struct write_entry *e = &c->log.entries[i];
    if (!in_disk(c, e)) die("an entry beyond the disk", EBADMSG);
    if (!is_record(c, e)) continue;
    if (e->at != c->record_at || e->bytes != sizeof(struct ledger) ||
        memcmp(e->data, &(uint64_t){LEDGER_MAGIC}, 8) != 0)
      die("a record that is none", EBADMSG);
    c->records[c->record_count++] = i;
  }
  if (c->record_count < 10) die("too few records of the ledger in the log", ENODATA);
}

static uint64_t count_points(const struct cut *c) {
  uint64_t points = 0;
  for (uint64_t i = 1; i < c->log.count; i++)
    points += is_point(c, i) && i > c->records[0] && i <= c->records[c->record_count - 2];
  return points;
}

static void replay(struct cut *c) {
  find_records(c);
  uint64_t points = count_points(c);
  printf("%" PRIu64 " entries, %" PRIu64 " records, %" PRIu64 " moments to cut at\n", c->log.count,
         c->record_count, points);
  uint64_t due = 0;
  for (uint64_t i = 1; i < c->log.count; i++) {
    if (c->log.entries[i - 1].flags & WRITE_FLUSH) pass_flush(c, i - 1);
    if (!is_point(c, i)) continue;
    /* The moment before a flush that ends something is always due, in one way; of the others as
     * many as are wanted, in every way. */
    due += c->images_wanted;
    bool all = due >= points * KEEPS;
    if (all) due -= points * KEEPS;
    bool any = uncertain(c, i), flush = c->log.entries[i].flags & WRITE_FLUSH;
    uint64_t way = random_below(&c->random, KEEPS);
    for (uint64_t keep = 0; keep < KEEPS; keep++)
      if (all ? any || keep == KEEP_NOTHING : any && flush && c->every_flush && keep == way)
        look_at_image(c, i, (enum keep)keep);
  }
}

/* ---- Main ---------------------------------------------------------------------------------------
 */

static void load_base(struct cut *c, const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st)) die(path, errno);
  c->disk_bytes = (uint64_t)st.st_size;
  c->disk = malloc(c->disk_bytes);
  for (uint64_t at = 0; at < c->disk_bytes;) {
    ssize_t n = pread(fd, c->disk + at, c->disk_bytes - at, (off_t)at);
    if (n <= 0) die(path, errno);
    at += (uint64_t)n;
  }
  close(fd);
  const char *tmp = getenv("TMPDIR");
  snprintf(c->directory, sizeof c->directory, "%.200s/shardring-cut-XXXXXX",
           tmp ? tmp : "/var/tmp");
  if (!mkdtemp(c->directory)) die(c->directory, errno);
  snprintf(c->image, sizeof c->image, "%.250s/image", c->directory);
  snprintf(c->store, sizeof c->store, "%.250s/%s", c->directory, c->ext4 ? "store" : "image");
  c->fd = memfd_create("image", MFD_CLOEXEC);
  if (c->fd < 0) die("memfd", errno);
  write_image(c, c->disk, 0, c->disk_bytes);
}

static int finish(struct cut *c) {
  printf("%" PRIu64 " images, %" PRIu64 " flushes passed, %" PRIu64 " blobs, %" PRIu64
         " volumes read, %" PRIu64
         " promises held against them; of writes since the last flush %" PRIu64 " kept, %" PRIu64
         " torn, %" PRIu64 " dropped; %" PRIu64 " blocks of volumes torn; %" PRIu64
         " units had lost what was not promised; images with findings: %" PRIu64 "\n",
         c->images, c->flushes, c->blobs, c->disks, c->promised, c->kept, c->torn, c->dropped,
         c->torn_blocks, c->lost, c->findings);
  close(c->fd);
  char command[400];
  snprintf(command, sizeof command, "rm -rf '%.250s'", c->directory);
  if (system(command)) return 1;
  if (c->forget) return c->findings == 0;
  return c->findings > 0 || c->images == 0 || c->promised == 0 || c->dropped == 0;
}

static int run_replay(struct cut *c, int count, char **args) {
  for (int i = 6; i < count; i++) {
    if (!strncmp(args[i], "--images=", 9))
      c->images_wanted = strtoull(args[i] + 9, NULL, 0);
    else if (!strncmp(args[i], "--seed=", 7))
      c->random.state = strtoull(args[i] + 7, NULL, 0);
    else if (!strcmp(args[i], "--forget-flushes"))
      c->forget = true;
    else
      return 2;
  }
  c->ext4 = strcmp(args[2], "ext4") == 0;
  c->every_flush = !c->ext4 && !c->forget;
  /* A file system's own blocks are not held to less than a block. */
  c->tear_bytes = c->ext4 ? 4096 : SECTOR;
  c->record_at = strtoull(args[5], NULL, 0);
  load_base(c, args[3]);
  int r = write_log_open(&c->log, args[4]);
  if (r) die(args[4], r);
  replay(c);
  write_log_close(&c->log);
  return finish(c);
}

static int run_format(const char *image, const char *bytes) {
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = strtoull(bytes, NULL, 0);
  o.shards = 2;
  o.force = true;
  int r = sr_format(image, &o);
  if (r) die("format", r);
  return 0;
}

int main(int count, char **args) {
  static struct cut cut = {.images_wanted = 600, .random = {1}};
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (count == 4 && !strcmp(args[1], "format")) return run_format(args[2], args[3]);
  if (count >= 6 && !strcmp(args[1], "replay")) return run_replay(&cut, count, args);
  fputs("usage: power_cut format IMAGE BYTES\n"
        "       power_cut replay raw|ext4 BASE LOG RECORD_BYTES [--images=N] [--seed=N] "
        "[--forget-flushes]\n",
        stderr);
  return 2;
}
