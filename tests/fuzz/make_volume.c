/* make_volume.c - corpus of the targets of volumes: records, the catalog, limits, streams, requests
 * and calls. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/volume_record.h"
#include "tests/fuzz/make_corpus.h"
#include "tools/volume_stream.h"

static struct draft out;

static void begin(uint8_t flags) {
  out.count = 0;
  draft_number(&out, flags, 1);
}
static void numbers(const uint8_t *bytes, size_t count) { draft_bytes(&out, bytes, count); }
#define ADD(...) numbers((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ---- Records --------------------------------------------------------------------------------- */

static void add_volume_record(const char *name, const struct volume_record *r) {
  uint8_t buf[VOLUME_RECORD_MAX];
  begin(0);
  draft_number(&out, r->id, 8);
  draft_number(&out, r->shard, 2);
  draft_number(&out, 2, 2);
  draft_bytes(&out, buf, volume_record_encode(r, buf));
  corpus_add("volume_record", name, out.bytes, out.count);
}

static void add_limits_record(const char *name, uint8_t kind, const struct limits_record *r) {
  uint8_t buf[VOLUME_RECORD_MAX];
  begin(kind);
  draft_number(&out, 0, 8); /* nobody looks at these */
  draft_number(&out, 0, 4);
  draft_bytes(&out, buf, limits_record_encode(r, buf));
  corpus_add("volume_record", name, out.bytes, out.count);
}

static void add_records(void) {
  struct volume_record r = {
      .id = 7, .layer = 9, .size_bytes = 1 << 20, .shard = 1, .block_shift = 9};
  struct limits_record l = {.limits = {.bytes = {1 << 20, 5, 1000}, .ops = {100, 0, 100}}};
  strcpy(r.name, "a volume \xc3\xa9");
  add_volume_record("volume", &r);
  r.parent = 5;
  r.limits = l.limits;
  strcpy(r.group, "tenant");
  add_volume_record("clone", &r);
  r.sealed = r.no_sums = true;
  r.name[0] = 0;
  add_volume_record("nameless", &r);
  r.stripe_shift = 20;
  r.shard = 0;
  r.block_shift = 12;
  add_volume_record("striped", &r);
  add_limits_record("store", 2, &l);
  strcpy(l.group, "tenant");
  add_limits_record("group", 1, &l);
}

/* ---- The catalog: see fuzz_catalog.c for ids and layers that are there before -----------------
 */

/* shape: 2: sealed, 16: striped by 64 KiB. */
static void fields(uint8_t id, uint8_t shard, uint8_t layer, uint8_t parent, uint8_t shape,
                   uint8_t name) {
  ADD(0, id, shard, layer, parent, shape, name, 5, 0xff, 7);
}
static void add_catalog(const char *name) { corpus_add("catalog", name, out.bytes, out.count); }

static void add_catalogs(void) {
  static const char *const flags[] = {"", "_read_only", "_damaged"};
  char name[64];
  for (uint8_t i = 0; i < 3; i++) {
    begin(i);
    snprintf(name, sizeof name, "as_it_is%s", flags[i]);
    add_catalog(name);
    fields(9, 1, 20, 8, 0, 5); /* a chain over both shards, a nameless one in it */
    fields(8, 0, 21, 7, 2, 0);
    fields(7, 1, 22, 0, 2, 6);
    fields(10, 0, 23, 0, 2, 0); /* nobody lies on it */
    snprintf(name, sizeof name, "chain%s", flags[i]);
    add_catalog(name);
    fields(7, 1, 22, 8, 2, 6);
    snprintf(name, sizeof name, "cycle%s", flags[i]);
    add_catalog(name);
  }
  begin(0);
  fields(9, 0, 1, 0, 0, 5);
  add_catalog("layer_twice");
  begin(2);
  fields(9, 0, 40, 0, 0, 1);
  fields(9, 1, 41, 0, 0, 6);
  add_catalog("name_and_id_twice");
  begin(0);
  fields(9, 0, 40, 0, 16 | 2, 5);
  fields(11, 0, 41, 9, 16, 6);
  ADD(4, 3, 0, 4, 4, 1); /* removed */
  add_catalog("striped");
  begin(0);
  fields(9, 0, 40, 0, 2, 5);
  fields(11, 0, 41, 9, 16, 6);
  add_catalog("striped_otherwise");
  begin(0);
  fields(9, 0, 40, 0, 0, 5);
  fields(11, 0, 41, 9, 0, 6);
  add_catalog("upon_no_snapshot");
  begin(0);
  fields(9, 0, 40, 12, 0, 5);
  add_catalog("upon_nothing");
  begin(0);
  fields(9, 0, 40, 9, 2, 5);
  add_catalog("upon_itself");
  begin(2);
  fields(9, 0, 40, 3, 16, 5);
  fields(10, 1, 41, 99, 0, 6);
  ADD(5, 12, 0x10, 3, 1, 2, 3);
  add_catalog("wrong");
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static void add_limit(const char *name, uint8_t flags, const struct limit_params *low,
                      const struct limit_params *high) {
  begin(flags);
  draft_number(&out, 1000000, 8);
  draft_bytes(&out, low, sizeof *low);
  draft_bytes(&out, high, sizeof *high);
  for (uint32_t i = 0; i < 24; i++) {
    uint8_t kind = (uint8_t)(flags ? i % 4 : 3 * (i % 2));
    draft_number(&out, kind, 1);
    draft_number(&out, i % 5 * 1000000, 4);
    draft_number(&out, 512u << i % 12, 5);
    if (kind == 1) draft_bytes(&out, i % 8 == 1 ? high : low, sizeof *low);
  }
  corpus_add("limit", name, out.bytes, out.count);
}

static void add_limits(void) {
  static const struct limit_params none;
  const struct limit_params low = {.bytes = {1 << 20, 5000, 1000}, .ops = {100, 0, 100}};
  const struct limit_params high = {.bytes = {UINT64_C(1) << 60, 0, UINT64_C(1) << 32}};
  add_limit("both", 0, &low, &high);
  add_limit("none", 0, &none, &none);
  add_limit("large", 0, &high, &low);
  add_limit("changes", 1, &low, &high);
}

/* ---- Streams --------------------------------------------------------------------------------- */

static void add_stream(const char *name, uint8_t flags, const struct stream_info *info) {
  static char data[6000];
  struct stream_writer w;
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  check(fd >= 0);
  memset(data, 'd', sizeof data);
  check(stream_write_begin(&w, fd, info) == 0);
  check(stream_write_zeros(&w, 0, 4096) == 0);
  check(stream_write_zeros(&w, 4096, 8192) == 0);
  check(stream_write_data(&w, 16384, data, 4096) == 0);
  check(stream_write_zeros(&w, 20480, 4096) == 0);
  check(stream_write_data(&w, 24576, data, 4608) == 0); /* to the end */
  check(stream_write_end(&w) == 0);
  begin(flags);
  check(lseek(fd, 0, SEEK_SET) == 0);
  int64_t n = stream_fill(fd, out.bytes + out.count, sizeof out.bytes - out.count);
  check(n > 0);
  out.count += (size_t)n;
  close(fd);
  corpus_add("stream", name, out.bytes, out.count);
}

static void add_streams(void) {
  struct stream_info info = {.block_bytes = 512, .size_bytes = 29184, .to_id = 3, .to = "disk"};
  add_stream("full", 0, &info);
  info.incremental = true;
  info.from_id = 2;
  info.from_size_bytes = 20480;
  strcpy(info.from, "snapshot");
  add_stream("incremental", 1, &info);
  add_stream("early", 3, &info);
}

/* ---- Requests and calls: see fuzz_blocks.c --------------------------------------------------- */

enum { CREATE, CLONE, SNAPSHOT, REMOVE, RENAME, RESIZE, ROLLBACK, FLATTEN, LIMIT };
enum { READ, WRITE, ZEROES, DISCARD, SYNC };
#define CALL  0
#define OPEN  4
#define FLUSH 7
#define AGAIN 0x88

/* Of handle 0; place: in sectors of 512 bytes. */
static void request(uint8_t op, uint8_t flags, uint8_t place, uint8_t sectors) {
  ADD(op, flags, 0, 4, place, 0, 4, sectors, 0);
}
static void one(uint8_t op, uint8_t flags, uint8_t place, uint8_t sectors) {
  ADD(9);
  request(op, flags, place, sectors);
}
/* Volume `name` of 200 KiB, open as handle 0, with something in it. */
static void begin_disk(uint8_t options) {
  begin(0);
  ADD(CALL, CREATE, 0, options, 4, 50, 0);
  ADD(OPEN, 0, 0, 0);
  one(WRITE, 0, 3, 20);
  one(WRITE, 1, 60, 33);
  one(READ, 0, 0, 63);
}
static void add_blocks(const char *name) { corpus_add("blocks", name, out.bytes, out.count); }

static void add_requests(void) {
  begin_disk(0);
  one(DISCARD, 0, 8, 16);
  one(ZEROES, 1, 5, 2);
  one(SYNC, 0, 0, 0);
  one(READ, 8, 0, 63);
  ADD(3, 100, 0, 0, 0); /* vectors */
  one(WRITE, 8, 1, 9);
  ADD(4, 0, 0, 1, 2, 100, 0);
  one(WRITE, 6, 0, 40); /* reserves */
  ADD(9 + 48);
  for (uint8_t i = 0; i < 4; i++) request(i % 2 ? WRITE : READ, 0, (uint8_t)(i * 16), 8);
  ADD(AGAIN, FLUSH | 16);
  add_blocks("requests");
  begin_disk(4 | 8); /* striped by 64 KiB */
  ADD(9, WRITE, 0, 0, 3, 15, 0, 3, 20, 0);
  ADD(9, WRITE, 8, 0, 3, 3, 0, 3, 30, 0, 3, 0x88, 0x13, 0x40, 0x9c);
  ADD(9, READ, 8, 0, 3, 0, 0, 3, 39, 0, 3, 0x10, 0x27, 0x88, 0x13);
  ADD(9, DISCARD, 0, 0, 3, 14, 0, 3, 10, 0);
  ADD(9, READ, 0, 0, 3, 0, 0, 3, 39, 0);
  ADD(CALL, SNAPSHOT, 0, 1, CALL, CLONE, 1, 1, 2, 0, 4, 0, 0, OPEN, 0, 0, 2);
  one(WRITE, 0, 3, 20);
  ADD(AGAIN | 16);
  add_blocks("striped");
  begin_disk(0);
  ADD(OPEN, 1, 1, 0); /* a second handle, for reading; and a third, shared */
  ADD(OPEN, 2, 2, 0);
  for (uint8_t op = READ; op <= SYNC; op++) ADD(9, op, 0, 1, 4, 3, 0, 4, 20, 0);
  ADD(9, WRITE, 0, 2, 4, 7, 0, 4, 9, 0, OPEN, 3, 0, 0);
  one(READ, 0, 0, 63);
  add_blocks("handles");
  begin(1); /* a file */
  ADD(OPEN, 0, 64, 0);
  one(WRITE, 0, 3, 20);
  one(ZEROES, 0, 5, 4);
  one(DISCARD, 0, 0, 8);
  one(READ, 0, 0, 40);
  one(SYNC, 0, 0, 0);
  add_blocks("file");
}

static void add_calls(void) {
  begin_disk(0);
  ADD(CALL, SNAPSHOT, 0, 1);
  one(WRITE, 0, 6, 30);
  ADD(CALL, SNAPSHOT, 0, 2, CALL, CLONE, 1, 1, 3, 0, 4, 0, 0);
  ADD(OPEN, 0, 0, 3);
  one(DISCARD, 0, 0, 48);
  one(READ, 0, 0, 63);
  ADD(CALL, REMOVE, 1, CALL, FLATTEN, 3, CALL, RENAME, 2, 1);
  ADD(CALL, ROLLBACK, 0, 1, AGAIN);
  add_blocks("layers");
  begin_disk(1);
  ADD(CALL, RESIZE, 0, 12, 9, 0, 0, CALL, RESIZE, 0, 12, 9, 0, 1, CALL, RESIZE, 0, 12, 100, 0, 1);
  one(READ, 0, 0, 63);
  ADD(CALL, SNAPSHOT, 0, 1, CALL, REMOVE, 0xe1, AGAIN);
  ADD(CALL, CREATE, 6, 0, 4, 9, 0, CALL, CREATE, 0xff, 0, 4, 9, 0, CALL, CREATE, 0, 0, 4, 9, 0);
  add_blocks("sizes");
  begin(0);
  ADD(CALL, CREATE, 0, 0, 4, 50, 0, CALL, LIMIT, 1, 0, 10, 1, 10, 1);
  ADD(CALL, LIMIT, 2, 0, 50, 0, 20, 0, CALL, LIMIT, 3 | 16, 0, 100, 0, 20, 0, OPEN, 0, 0, 0);
  one(WRITE, 0, 3, 60);
  ADD(9 + 48);
  for (uint8_t i = 0; i < 4; i++) request(i % 2 ? WRITE : READ, 0, (uint8_t)(i * 16), 8);
  ADD(CALL, LIMIT, 3, 0, 0, 0, AGAIN);
  add_blocks("limits");
}

void corpus_volume(void) {
  add_records();
  add_catalogs();
  add_limits();
  add_streams();
  add_requests();
  add_calls();
}
