/* Requests whose memory lies in many pieces: one device I/O for what is one run on disk, the rest
 * as it must be cut; data and checksums right whatever the pieces are. */
#include "tests/shards/sums_rig.h"

#define PAGES 200u

/* Pages in an order of their own, so that no two lie in a row. */
struct pages {
  char *memory;
  struct iovec iov[2 * PAGES];
  uint32_t count;
};

static char *page_at(const struct pages *p, uint32_t i) {
  return p->memory + (uint64_t)(i * 5 % (PAGES + 1)) * BLOCK_BYTES;
}
static void pages_make(struct pages *p, uint32_t count) {
  p->count = count;
  for (uint32_t i = 0; i < count; i++) p->iov[i] = (struct iovec){page_at(p, i), BLOCK_BYTES};
}
static void pages_fill(const struct pages *p, uint32_t tag, uint64_t block) {
  for (uint32_t i = 0; i < p->count; i++) fill_block(p->iov[i].iov_base, tag, block + i);
}
static void pages_expect(const struct pages *p, const struct disk *d, uint64_t block) {
  char want[BLOCK_BYTES];
  for (uint32_t i = 0; i < p->count; i++) {
    fill_block(want, d->tags[block + i], block + i);
    assert_memory_equal(p->iov[i].iov_base, want, BLOCK_BYTES);
  }
}

static int64_t run_pages(struct rig *r, struct disk *d, const struct pages *p, uint8_t kind,
                         uint64_t block) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < p->count; i++) bytes += p->iov[i].iov_len;
  struct shard_op *op =
      volume_op(r, d, kind, block << BLOCK_SHIFT, bytes, (void *)(uintptr_t)p->iov);
  volume_args(op)->iov_count = p->count;
  return rig_run(r, op);
}

static void read_pages(struct rig *r, struct disk *d, struct pages *p, uint64_t block,
                       uint64_t reads) {
  uint64_t before = r->device.reads;
  pages_fill(p, 12345, block);
  assert_int_equal(run_pages(r, d, p, OP_READ, block), (int64_t)p->count << BLOCK_SHIFT);
  assert_int_equal(r->device.reads - before, reads);
  pages_expect(p, d, block);
}

/* How many device writes took the data: of those that overwrite in place, so no log is among them.
 */
static void write_pages(struct rig *r, struct disk *d, struct pages *p, uint64_t block,
                        uint32_t tag, uint64_t writes) {
  uint64_t before = r->device.writes;
  pages_fill(p, tag, block);
  for (uint32_t i = 0; i < p->count; i++) d->tags[block + i] = tag;
  assert_int_equal(run_pages(r, d, p, OP_WRITE, block), (int64_t)p->count << BLOCK_SHIFT);
  assert_int_equal(r->device.writes - before, writes);
}

static void begin(struct rig *r, struct disk *d, struct pages *p, uint64_t seed) {
  memset(d, 0, sizeof *d);
  open_rig(r, seed);
  disk_open(r, d, 1, nothing, false);
  p->memory = rig_data((uint64_t)(PAGES + 1) << BLOCK_SHIFT, 3);
  write_blocks(r, d, 0, 512, 1); /* in a row: half a leaf of a new disk */
  rig_drain(r);
}
static void end(struct rig *r, struct disk *d, struct pages *p) {
  free(p->memory);
  disk_close(r, d);
  rig_close(r);
}

static void many_pages_are_one_io(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct pages p;
  begin(&r, &d, &p, 1);
  pages_make(&p, 32);
  read_pages(&r, &d, &p, 7, 1);
  write_pages(&r, &d, &p, 40, 2, 1);
  read_pages(&r, &d, &p, 30, 1);
  /* As many as one I/O takes, one more, and as many as a guest may ask for. */
  pages_make(&p, 64);
  read_pages(&r, &d, &p, 0, 1);
  pages_make(&p, 65);
  read_pages(&r, &d, &p, 0, 2);
  pages_make(&p, PAGES);
  write_pages(&r, &d, &p, 100, 3, 4);
  read_pages(&r, &d, &p, 100, 4);
  expect_disk(&r, &d);
  end(&r, &d, &p);
}

/* Pages that follow each other in memory need no entry of their own; entries of nothing neither. */
static void neighbours_are_one_piece(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct pages p;
  begin(&r, &d, &p, 2);
  p.count = 0;
  for (uint32_t i = 0; i < PAGES; i++) {
    p.iov[p.count++] = (struct iovec){p.memory + (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES};
    if (i % 3 == 0) p.iov[p.count++] = (struct iovec){p.memory + 77, 0};
  }
  uint64_t reads = r.device.reads;
  assert_int_equal(run_pages(&r, &d, &p, OP_READ, 5), PAGES << BLOCK_SHIFT);
  assert_int_equal(r.device.reads - reads, 1);
  char want[BLOCK_BYTES];
  for (uint32_t i = 0; i < PAGES; i++) {
    fill_block(want, 1, 5 + i);
    assert_memory_equal(p.memory + (uint64_t)i * BLOCK_BYTES, want, BLOCK_BYTES);
  }
  end(&r, &d, &p);
}

/* Where the disk has holes, or another place, the vector is cut; zeros need no I/O. */
static void runs_on_disk_cut_it(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct pages p;
  begin(&r, &d, &p, 3);
  assert_int_equal(run(&r, &d, OP_DISCARD, 20 << BLOCK_SHIFT, 4 << BLOCK_SHIFT, NULL),
                   4 << BLOCK_SHIFT);
  memset(d.tags + 20, 0, 4 * sizeof d.tags[0]);
  rig_drain(&r);
  pages_make(&p, 40);
  read_pages(&r, &d, &p, 1, 2);
  read_pages(&r, &d, &p, 500, 1); /* beyond what was ever written */
  end(&r, &d, &p);
}

/* Pieces of all sizes, aligned or not: data, gaps of memory and neighbours on disk. */
static void random_pieces(struct rig *r, struct pages *p, uint64_t bytes) {
  uint64_t left = bytes, at = 0;
  p->count = 0;
  while (left > 0) {
    uint64_t n = (1 + random_below(&r->random, 12)) * 512;
    if (random_below(&r->random, 4)) n = round_up(n, BLOCK_BYTES);
    if (n > left || p->count == PAGES - 1) n = left;
    p->iov[p->count++] = (struct iovec){p->memory + at, n};
    at += n;
    left -= n;
    if (random_below(&r->random, 3)) at = round_up(at, BLOCK_BYTES);
    if (random_below(&r->random, 6) == 0) at += 64;
  }
}

static void copy_pieces(const struct pages *p, char *row, bool out) {
  for (uint32_t i = 0; i < p->count; i++) {
    memcpy(out ? row : p->iov[i].iov_base, out ? p->iov[i].iov_base : row, p->iov[i].iov_len);
    row += p->iov[i].iov_len;
  }
}

static void random_ones_are_right(void **state) {
  (void)state;
  for (uint64_t seed = 10; seed < 14; seed++) {
    struct rig r;
    static struct disk d;
    struct pages p;
    begin(&r, &d, &p, seed);
    free(p.memory);
    p.memory = rig_data(4 << 20, 1);
    char *row = rig_data(1 << 20, 1), want[BLOCK_BYTES];
    for (uint32_t i = 0; i < 300; i++) {
      uint64_t n = 1 + random_below(&r.random, 100),
               block = random_below(&r.random, DISK_BLOCKS - n);
      bool write = random_below(&r.random, 2);
      random_pieces(&r, &p, n << BLOCK_SHIFT);
      for (uint64_t k = 0; write && k < n; k++) {
        d.tags[block + k] = i + 2;
        fill_block(row + (k << BLOCK_SHIFT), i + 2, block + k);
      }
      if (write) copy_pieces(&p, row, false);
      assert_int_equal(run_pages(&r, &d, &p, write ? OP_WRITE : OP_READ, block), n << BLOCK_SHIFT);
      copy_pieces(&p, row, true);
      for (uint64_t k = 0; k < n; k++) {
        fill_block(want, d.tags[block + k], block + k);
        assert_memory_equal(row + (k << BLOCK_SHIFT), want, BLOCK_BYTES);
      }
    }
    expect_disk(&r, &d);
    free(row);
    end(&r, &d, &p);
  }
}

/* ---- Checksums ------------------------------------------------------------------------------ */

static void expect_damage(struct rig *r, struct disk *d, struct pages *p, uint64_t first,
                          uint64_t block) {
  char name[32];
  uint32_t logged = r->errors_logged;
  flip(r, d->layer, block, 99);
  assert_int_equal(run_pages(r, d, p, OP_READ, first), -EBADMSG);
  assert_int_equal(r->errors_logged, logged + 1);
  snprintf(name, sizeof name, "block %llu ", (unsigned long long)block);
  assert_non_null(strstr(r->last_error, name));
  flip(r, d->layer, block, 99);
  read_pages(r, d, p, first, 1);
}

static void damage_in_a_vector_is_found(void **state) {
  (void)state;
  struct rig r;
  static struct disk d, s;
  struct pages p;
  begin(&r, &d, &p, 21);
  snapshot(&r, &d, &s, 2);
  assert_int_equal(sum_layer(&r, 1), 0);
  assert_all_summed(&r, 1);
  pages_make(&p, 32);
  read_pages(&r, &s, &p, 64, 1);
  read_pages(&r, &d, &p, 64, 1);
  expect_damage(&r, &s, &p, 64, 64);
  expect_damage(&r, &s, &p, 64, 80);
  expect_damage(&r, &s, &p, 64, 95);
  disk_close(&r, &s);
  end(&r, &d, &p);
}

/* A guest that gives the same page twice damages nothing but its own page. */
static void a_page_that_is_given_twice_is_no_damage(void **state) {
  (void)state;
  struct rig r;
  static struct disk d, s;
  struct pages p;
  char want[BLOCK_BYTES];
  begin(&r, &d, &p, 24);
  snapshot(&r, &d, &s, 2);
  assert_int_equal(sum_layer(&r, 1), 0);
  for (uint32_t i = 0; i < 2; i++) {
    pages_make(&p, 4);
    p.iov[2] = p.iov[1];
    assert_int_equal(run_pages(&r, i ? &s : &d, &p, OP_READ, 64), 4 << BLOCK_SHIFT);
    for (uint32_t k = 0; k < 4; k++) {
      fill_block(want, s.tags[64 + k], 64 + k);
      if (k != 1) assert_memory_equal(p.iov[k].iov_base, want, BLOCK_BYTES);
    }
  }
  assert_int_equal(r.errors_logged, 0);
  disk_close(&r, &s);
  end(&r, &d, &p);
}

/* What is written in pieces gets its checksums from the pieces: in order, first and again. */
static void written_pieces_are_summed(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct pages p;
  struct volume_config config = {
      .layer = 1, .live_sums = true, .size_bytes = DISK_BYTES, .block_bytes = 512};
  memset(&d, 0, sizeof d);
  open_rig(&r, 22);
  d.layer = 1;
  assert_int_equal(shard_layer_set(r.shard, 1, nothing), 0);
  assert_int_equal(shard_volume_open(r.shard, &config, &d.volume), 0);
  p.memory = rig_data((uint64_t)(PAGES + 1) << BLOCK_SHIFT, 3);
  pages_make(&p, 32);
  for (uint32_t tag = 1; tag < 4; tag++) {
    pages_fill(&p, tag, 1008); /* over the end of a leaf */
    for (uint32_t i = 0; i < 32; i++) d.tags[1008 + i] = tag;
    assert_int_equal(run_pages(&r, &d, &p, OP_WRITE, 1008), 32 << BLOCK_SHIFT);
    assert_all_summed(&r, 1);
    assert_int_equal(stats_of(&r, 1).summed_blocks, 32);
    pages_expect(&p, &d, 1008);
    pages_make(&p, 16);
    read_pages(&r, &d, &p, 1008, 1);
    expect_damage(&r, &d, &p, 1008, 1019);
    pages_make(&p, 32);
  }
  rig_drain(&r);
  end(&r, &d, &p);
}

/* A request for more blocks than 32 bits count begins as any other. */
static void a_huge_one_begins(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct volume_config file = {.size_bytes = UINT64_C(1) << 46, .block_bytes = 4096};
  open_rig(&r, 23);
  assert_int_equal(shard_volume_open(r.shard, &file, &d.volume), 0);
  for (uint64_t bytes = UINT64_C(1) << 43; bytes <= UINT64_C(1) << 45; bytes *= 2) {
    r.device.fail_writes = INT32_MAX; /* and ends soon */
    assert_int_equal(run(&r, &d, OP_WRITE_ZEROES, 0, bytes, NULL), -EIO);
  }
  r.device.fail_writes = 0;
  disk_close(&r, &d);
  rig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(many_pages_are_one_io),
      cmocka_unit_test(neighbours_are_one_piece),
      cmocka_unit_test(runs_on_disk_cut_it),
      cmocka_unit_test(random_ones_are_right),
      cmocka_unit_test(damage_in_a_vector_is_found),
      cmocka_unit_test(written_pieces_are_summed),
      cmocka_unit_test(a_huge_one_begins),
      cmocka_unit_test(a_page_that_is_given_twice_is_no_damage),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
