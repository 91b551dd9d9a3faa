/* test_ring.c - the device's side of a split virtqueue: chains as drivers make them, and as no
 * driver should. */
#include "tests/vhost/ring_guest.h"

/* The chain with head 0 is malformed; the driver gets a status there, or nowhere (0). */
static void assert_refused(uint64_t status) {
  assert_int_equal(take(0), -EBADMSG);
  assert_int_equal(chain.head, 0);
  assert_false(ring.broken);
  assert_int_equal(chain.out_count, 0);
  assert_int_equal(chain.out_bytes, 0);
  assert_int_equal(chain.in_count, status != 0);
  assert_int_equal(chain.in_bytes, status != 0);
  if (status) assert_piece(0, status, 1);
}

/* ---- What is sound --------------------------------------------------------------------------- */

static void takes_a_chain(void **state) {
  (void)state;
  make_request(descs + 3, 3, HIGH + 0x1000, 4096);
  assert_int_equal(ring_available(&ring), 0);
  assert_int_equal(ring_take(&ring, &chain), 0);
  assert_int_equal(take(3), 1);
  assert_int_equal(chain.head, 3);
  assert_int_equal(chain.out_count, 1);
  assert_int_equal(chain.out_bytes, 16);
  assert_int_equal(chain.in_count, 2);
  assert_int_equal(chain.in_bytes, 4097);
  assert_piece(0, LOW + 0xa000, 16);
  assert_piece(1, HIGH + 0x1000, 4096);
  assert_piece(2, STATUS, 1);
  assert_int_equal(ring_take(&ring, &chain), 0);
}

static void only_what_was_seen_is_taken(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  offer(0);
  assert_int_equal(ring_available(&ring), 1);
  offer(0);
  assert_int_equal(ring_take(&ring, &chain), 1);
  assert_int_equal(ring_take(&ring, &chain), 0);
  assert_int_equal(ring_available(&ring), 1);
  ring_prefetch(&ring, 5);
  assert_int_equal(ring_take(&ring, &chain), 1);
}

static void takes_a_chain_once_more(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  make_request(descs + 3, 3, HIGH, 4096);
  assert_int_equal(take(0), 1);
  assert_int_equal(take(3), 1);
  assert_int_equal(ring_again(&ring, 0, &chain), 1); /* of one that was never given back */
  assert_int_equal(chain.head, 0);
  assert_piece(1, NEXT, 512);
  descs[2].next = 0;
  descs[2].flags |= VRING_NEXT;
  assert_int_equal(ring_again(&ring, 0, &chain), -EBADMSG);
  assert_int_equal(ring_take(&ring, &chain), 0);
  ring_untake(&ring);
  assert_int_equal(ring_available(&ring), 1);
  assert_int_equal(ring_take(&ring, &chain), 1);
  assert_int_equal(chain.head, 3);
}

static void takes_an_indirect_table(void **state) {
  (void)state;
  make_request(table + 1, 1, HIGH, 8192);
  table[0] = (struct vring_desc){NEXT, 7, VRING_NEXT, 1};
  /* An ordinary one may come before; what the flag for writing says does not matter. */
  descs[0] = (struct vring_desc){NEXT + 0x100, 5, VRING_NEXT, 9};
  descs[9] = (struct vring_desc){TABLE, 64, VRING_INDIRECT | VRING_WRITE, 77};
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.out_count, 3);
  assert_int_equal(chain.out_bytes, 28);
  assert_int_equal(chain.in_count, 2);
  assert_piece(0, NEXT + 0x100, 5);
  assert_piece(1, NEXT, 7);
  assert_piece(3, HIGH, 8192);
  assert_piece(4, STATUS, 1);
  /* A table need not be aligned. */
  memmove((char *)table + 5, table, 64);
  descs[9].address += 5;
  assert_int_equal(take(0), 1);
  assert_piece(4, STATUS, 1);
}

static void neighbours_are_one_piece(void **state) {
  (void)state;
  descs[0] = (struct vring_desc){NEXT, 16, VRING_NEXT, 1};
  descs[1] = (struct vring_desc){NEXT + 16, 4096, VRING_NEXT, 2};
  descs[2] = (struct vring_desc){NEXT + 4112, 512, VRING_NEXT | VRING_WRITE, 3};
  descs[3] = (struct vring_desc){NEXT + 4624, 0, VRING_NEXT | VRING_WRITE, 4}; /* nothing */
  descs[4] = (struct vring_desc){NEXT + 4624, 1, VRING_WRITE, 0};
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.out_count, 1);
  assert_int_equal(chain.in_count, 1);
  assert_piece(0, NEXT, 4112);
  assert_piece(1, NEXT + 4112, 513);
}

static void data_of_two_regions_is_split(void **state) {
  (void)state;
  make_request(descs, 0, NEXT - 100, 300);
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.in_count, 3);
  assert_int_equal(chain.in_bytes, 301);
  assert_piece(1, NEXT - 100, 100);
  assert_piece(2, NEXT, 200);
  assert_piece(3, STATUS, 1);
}

static void chain_as_long_as_the_queue(void **state) {
  (void)state;
  for (uint16_t i = 0; i < SIZE; i++)
    descs[i] = (struct vring_desc){NEXT + 64u * i, 1, VRING_NEXT, i + 1};
  descs[SIZE - 1].flags = VRING_WRITE;
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.out_count, SIZE - 1);
  assert_int_equal(chain.in_count, 1);
}

/* ---- What is not ----------------------------------------------------------------------------- */

static void loops_are_detected(void **state) {
  (void)state;
  descs[0] = (struct vring_desc){NEXT, 1, VRING_NEXT, 0};
  assert_refused(0);
  make_request(descs, 0, NEXT, 512);
  descs[2].flags |= VRING_NEXT; /* back to the header */
  assert_refused(STATUS);
  descs[2].next = 2;
  assert_refused(STATUS);
  for (uint16_t i = 0; i < SIZE; i++) /* as long as the queue, and no end */
    descs[i] = (struct vring_desc){STATUS, 0, VRING_NEXT | VRING_WRITE, (i + 1) % SIZE};
  descs[7].bytes = 1;
  assert_refused(STATUS);
  make_request(table, 0, NEXT, 512);
  table[2].flags |= VRING_NEXT;
  descs[0] = (struct vring_desc){TABLE, 48, VRING_INDIRECT, 0};
  assert_refused(STATUS);
}

static void chains_are_bounded(void **state) {
  (void)state;
  struct iovec many[RING_CHAIN_MAX + 8];
  struct vring_desc *large = (struct vring_desc *)(void *)at(HIGH);
  chain.iov = many;
  chain.room = array_size(many);
  for (uint32_t i = 0; i < RING_CHAIN_MAX + 8; i++)
    large[i] = (struct vring_desc){HIGH + 0x100000 + 8 * i, 1, VRING_NEXT, (uint16_t)(i + 1)};
  descs[0] = (struct vring_desc){HIGH, (RING_CHAIN_MAX + 8) * 16, VRING_INDIRECT, 0};
  large[RING_CHAIN_MAX - 2].flags = VRING_WRITE; /* the indirect one counts */
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.out_count + chain.in_count, RING_CHAIN_MAX - 1);
  large[RING_CHAIN_MAX - 2].flags |= VRING_NEXT;
  large[RING_CHAIN_MAX - 1].flags = VRING_WRITE;
  assert_int_equal(take(0), -EBADMSG);
  assert_int_equal(chain.in_count, 1);
}

static void no_descriptor_beyond_the_table(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  descs[1].next = SIZE; /* memory is there, even a sound descriptor */
  descs[SIZE] = descs[2];
  assert_refused(NEXT + 511);
  descs[1].next = UINT16_MAX;
  assert_refused(NEXT + 511);
  make_request(table, 0, NEXT, 512);
  descs[0] = (struct vring_desc){TABLE, 32, VRING_INDIRECT, 0};
  assert_refused(NEXT + 511);
}

static void head_beyond_the_ring_breaks_it(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  assert_int_equal(take(0), 1);
  assert_int_equal(take(SIZE), -EBADMSG);
  assert_int_equal(chain.head, UINT16_MAX);
  assert_int_equal(chain.out_count + chain.in_count, 0); /* nothing of the one before */
  assert_true(ring.broken);
  assert_int_equal(take(0), -EBADMSG);
  assert_int_equal(ring_take(&ring, &chain), -EBADMSG);
  assert_int_equal(chain.head, UINT16_MAX);
  assert_int_equal(chain.in_count, 0);
}

static void more_than_the_ring_has_breaks_it(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  avail->index = SIZE;
  assert_int_equal(ring_available(&ring), SIZE);
  avail->index = SIZE + 1;
  assert_int_equal(ring_available(&ring), -EBADMSG);
  assert_true(ring.broken);
  map_ring(SIZE, 0);
  avail->index = UINT16_MAX; /* backwards */
  assert_int_equal(ring_available(&ring), -EBADMSG);
  assert_int_equal(ring_take(&ring, &chain), -EBADMSG);
}

static void memory_that_there_is_not(void **state) {
  (void)state;
  const struct {
    uint64_t address;
    uint32_t bytes;
  } bad[] = {{0, 1},
             {LOW - 1, 2},
             {NEXT + 0xffff, 2},
             {HIGH - 1, 1},
             {HIGH + BIG - 100, 101},
             {HIGH + 1, UINT32_MAX},
             {UINT64_MAX, 2},
             {UINT64_MAX - 15, 16},
             {UINT64_MAX - 15, 0x20010}};
  for (size_t i = 0; i < array_size(bad); i++) {
    make_request(descs, 0, bad[i].address, bad[i].bytes);
    assert_refused(STATUS); /* a malformed chain with a status byte gets its answer */
    make_request(descs, 0, NEXT, 512);
    descs[2].address = bad[i].address;
    descs[2].bytes = bad[i].bytes;
    bool last_is_there = bad[i].address == LOW - 1;
    assert_refused(last_is_there ? LOW : NEXT + 511);
  }
  descs[1].flags &= ~VRING_WRITE; /* a malformed chain without one: nothing can be answered */
  descs[2].flags = 0;
  assert_refused(0);
}

static void readable_behind_writable(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  descs[0].flags |= VRING_WRITE;
  descs[1].flags &= ~VRING_WRITE;
  assert_refused(STATUS);
  descs[0].bytes = 0;
  assert_refused(STATUS);
}

static void misplaced_indirect_tables(void **state) {
  (void)state;
  make_request(table, 0, NEXT, 512);
  make_request(table + 4, 0, NEXT, 512);
  descs[0] = (struct vring_desc){TABLE, 48, VRING_INDIRECT, 0};
  assert_int_equal(take(0), 1);
  table[1] = (struct vring_desc){TABLE + 64, 48, VRING_INDIRECT, 0}; /* nested */
  assert_refused(0);
  make_request(table, 0, NEXT, 512);
  table[2].flags |= VRING_INDIRECT;
  assert_refused(NEXT + 511);
  make_request(table, 0, NEXT, 512);
  descs[0].flags |= VRING_NEXT; /* goes on behind it */
  assert_refused(0);
  descs[0].flags = VRING_INDIRECT;
  ring.indirect = false; /* not negotiated */
  assert_refused(0);
}

static void indirect_tables_of_wrong_size_or_place(void **state) {
  (void)state;
  const struct {
    uint64_t address;
    uint32_t bytes;
  } bad[] = {{TABLE, 0},     {TABLE, 15},         {TABLE, 47},
             {TABLE, 49},    {TABLE, UINT32_MAX}, {TABLE, UINT32_MAX & ~15u},
             {0, 48},        {NEXT + 0xfff0, 48}, {UINT64_MAX - 15, 48},
             {NEXT - 16, 48}}; /* parts of a table that lie elsewhere */
  for (size_t i = 0; i < array_size(bad); i++) {
    make_request(table, 0, NEXT + 512, 512);
    descs[0] = (struct vring_desc){bad[i].address, bad[i].bytes, VRING_INDIRECT, 0};
    assert_refused(0);
  }
}

static void total_bytes_stay_below_4_gib(void **state) {
  (void)state;
  for (uint16_t i = 0; i < 16; i++)
    table[i] = (struct vring_desc){HIGH, (uint32_t)BIG, VRING_NEXT | VRING_WRITE, i + 1};
  table[15].bytes--;
  table[15].flags = VRING_WRITE;
  descs[0] = (struct vring_desc){TABLE, 256, VRING_INDIRECT, 0};
  assert_int_equal(take(0), 1);
  assert_int_equal(chain.in_bytes, UINT32_MAX);
  table[15].bytes++;
  assert_refused(HIGH + BIG - 1);
  table[0].flags = VRING_NEXT; /* in both directions together */
  assert_refused(HIGH + BIG - 1);
  table[15].bytes--;
  assert_int_equal(take(0), 1);
}

static void more_pieces_than_room(void **state) {
  (void)state;
  make_request(descs, 0, HIGH + 0x1000, 4096);
  chain.room = 3;
  assert_int_equal(take(0), 1);
  chain.room = 2;
  assert_refused(STATUS);
  descs[0].bytes = descs[1].bytes = 0;
  chain.room = 1;
  assert_int_equal(take(0), 1);
  assert_piece(0, STATUS, 1);
  chain.room = 0;
  assert_refused(0);
  make_request(descs, 0, NEXT - 1, 2); /* a piece that is two */
  chain.room = 3;
  assert_refused(STATUS);
}

/* ---- Rings in memory ------------------------------------------------------------------------- */

static int try_map(uint16_t size, uint64_t desc, uint64_t avail_guest, uint64_t used_guest) {
  int result =
      ring_map(&ring, &memory, size, USER + desc, USER + avail_guest, USER + used_guest, 0);
  assert_int_equal(ring.desc != NULL, result == 0);
  assert_int_equal(ring_available(&ring), 0);
  return result;
}

static void ring_areas_lie_whole_in_one_region(void **state) {
  (void)state;
  const uint64_t high_end = HIGH + BIG;
  assert_int_equal(try_map(SIZE, NEXT - 256, LOW, LOW + 256), 0);
  assert_int_equal(try_map(SIZE, NEXT - 240, LOW, LOW + 256), -EFAULT);
  assert_int_equal(try_map(SIZE, high_end - 256, high_end - 38, high_end - 136), 0);
  assert_int_equal(try_map(SIZE, high_end - 240, high_end - 38, high_end - 136), -EFAULT);
  /* With the event index behind each ring. */
  assert_int_equal(try_map(SIZE, high_end - 256, high_end - 36, high_end - 136), -EFAULT);
  assert_int_equal(try_map(SIZE, high_end - 256, high_end - 38, high_end - 132), -EFAULT);
  assert_int_equal(try_map(SIZE, 0, LOW, LOW + 256), -EFAULT);
  assert_int_equal(try_map(SIZE, LOW, HIGH - 2, LOW + 256), -EFAULT);
  assert_int_equal(try_map(SIZE, LOW, LOW + 256, UINT64_MAX - USER - 3), -EFAULT);
  assert_int_equal(ring_map(&ring, &memory, SIZE, LOW, LOW, LOW, 0), -EFAULT); /* guest's */
}

static void ring_areas_are_aligned(void **state) {
  (void)state;
  assert_int_equal(try_map(SIZE, LOW + 8, LOW + 0x8000, LOW + 0x9000), -EINVAL);
  assert_int_equal(try_map(SIZE, LOW, LOW + 0x8001, LOW + 0x9000), -EINVAL);
  assert_int_equal(try_map(SIZE, LOW, LOW + 0x8000, LOW + 0x9002), -EINVAL);
  assert_int_equal(try_map(SIZE, LOW + 16, LOW + 0x8002, LOW + 0x9004), 0);
}

static void queue_size_is_a_power_of_two(void **state) {
  (void)state;
  const uint16_t bad[] = {0, 3, 15, 17, 1000, 2048, 32768, 65535};
  for (size_t i = 0; i < array_size(bad); i++)
    assert_int_equal(try_map(bad[i], HIGH, HIGH + 0x100000, HIGH + 0x200000), -EINVAL);
  for (uint16_t size = 1; size <= RING_SIZE_MAX; size *= 2)
    assert_int_equal(try_map(size, HIGH, HIGH + 0x100000, HIGH + 0x200000), 0);
}

static void rings_are_translated_again_after_a_change(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  assert_int_equal(take(0), 1);
  assert_int_equal(memory_remove(&memory, NEXT, USER + NEXT, 0x10000), 0);
  map_ring(SIZE, ring.last_avail);
  assert_refused(STATUS); /* what was remembered of the old table does not count */
  assert_int_equal(memory_remove(&memory, LOW, USER + LOW, 0x10000), 0);
  assert_int_equal(try_map(SIZE, LOW, LOW + 0x8000, LOW + 0x9000), -EFAULT);
  assert_int_equal(ring_take(&ring, &chain), 0);
}

/* ---- Giving back ----------------------------------------------------------------------------- */

static void used_is_seen_when_published(void **state) {
  (void)state;
  used->index = 65534; /* as one before us left it */
  avail->index = 65533;
  map_ring(SIZE, 65533);
  make_request(descs, 0, NEXT, 512);
  for (uint32_t i = 0; i < 5; i++) assert_int_equal(take(0), 1);
  ring_put(&ring, 0, 1);
  ring_put(&ring, 5, 2);
  ring_put(&ring, 15, 0xfffffff0);
  assert_int_equal(used->index, 65534);
  assert_true(ring_publish(&ring));
  assert_int_equal(used->index, 1);
  assert_int_equal(used->ring[14].id, 0);
  assert_int_equal(used->ring[15].id, 5);
  assert_int_equal(used->ring[15].bytes, 2);
  assert_int_equal(used->ring[0].id, 15);
  assert_int_equal(used->ring[0].bytes, 0xfffffff0);
  assert_int_equal(ring.last_avail, 2);
  assert_false(ring_publish(&ring)); /* nothing new */
}

static void driver_may_wish_not_to_be_told(void **state) {
  (void)state;
  avail->flags = VRING_NO_INTERRUPT;
  assert_true(ring_publish(&ring)); /* the first time: who knows what it was told */
  ring_put(&ring, 1, 0);
  assert_false(ring_publish(&ring));
  avail->flags = 0;
  assert_false(ring_publish(&ring));
  ring_put(&ring, 1, 0);
  assert_true(ring_publish(&ring));
}

static void driver_is_told_of_the_entry_it_waits_for(void **state) {
  (void)state;
  ring.event_idx = true;
  avail->flags = VRING_NO_INTERRUPT; /* does not count then */
  for (uint32_t start = 0; start < 65536; start += 65536 / 16 - 1) {
    for (uint32_t batch = 1; batch <= SIZE; batch++) {
      for (uint32_t event = 0; event < 2 * SIZE; event++) {
        used->index = (uint16_t)start;
        map_ring(SIZE, 0);
        ring_publish(&ring);
        avail->ring[SIZE] = (uint16_t)(start + event - SIZE / 2);
        for (uint32_t i = 0; i < batch; i++) ring_put(&ring, 1, 0);
        bool is_new = event >= SIZE / 2 && event < SIZE / 2 + batch;
        assert_int_equal(ring_publish(&ring), is_new);
        assert_false(ring_publish(&ring));
      }
    }
  }
}

static void asks_to_be_told(void **state) {
  (void)state;
  uint16_t *event = (uint16_t *)(void *)&used->ring[SIZE];
  make_request(descs, 0, NEXT, 512);
  assert_int_equal(take(0), 1);
  ring_notify_me(&ring, false);
  assert_int_equal(used->flags, VRING_NO_NOTIFY);
  ring_notify_me(&ring, true);
  assert_int_equal(used->flags, 0);
  assert_int_equal(*event, 0);
  ring.event_idx = true;
  assert_int_equal(take(0), 1);
  ring_notify_me(&ring, false);
  assert_int_equal(*event, 1); /* has been passed: no later entry crosses it */
  ring_notify_me(&ring, true);
  assert_int_equal(*event, 2);
  ring_unmap(&ring);
  ring_notify_me(&ring, true);
  assert_int_equal(ring_available(&ring), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_GUEST(takes_a_chain),
      WITH_GUEST(only_what_was_seen_is_taken),
      WITH_GUEST(takes_a_chain_once_more),
      WITH_GUEST(takes_an_indirect_table),
      WITH_GUEST(neighbours_are_one_piece),
      WITH_GUEST(data_of_two_regions_is_split),
      WITH_GUEST(chain_as_long_as_the_queue),
      WITH_GUEST(loops_are_detected),
      WITH_GUEST(chains_are_bounded),
      WITH_GUEST(no_descriptor_beyond_the_table),
      WITH_GUEST(head_beyond_the_ring_breaks_it),
      WITH_GUEST(more_than_the_ring_has_breaks_it),
      WITH_GUEST(memory_that_there_is_not),
      WITH_GUEST(readable_behind_writable),
      WITH_GUEST(misplaced_indirect_tables),
      WITH_GUEST(indirect_tables_of_wrong_size_or_place),
      WITH_GUEST(total_bytes_stay_below_4_gib),
      WITH_GUEST(more_pieces_than_room),
      WITH_GUEST(ring_areas_lie_whole_in_one_region),
      WITH_GUEST(ring_areas_are_aligned),
      WITH_GUEST(queue_size_is_a_power_of_two),
      WITH_GUEST(rings_are_translated_again_after_a_change),
      WITH_GUEST(used_is_seen_when_published),
      WITH_GUEST(driver_may_wish_not_to_be_told),
      WITH_GUEST(driver_is_told_of_the_entry_it_waits_for),
      WITH_GUEST(asks_to_be_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
