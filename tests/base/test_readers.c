/* test_readers.c - readers.h: memory is not given back while somebody looks at it. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "shards/base/readers.h"

static struct readers readers;

static void who_looks_is_waited_for(void **state) {
  (void)state;
  readers_init(&readers);
  assert_true(readers_passed(&readers, readers_tag(&readers))); /* nobody there yet */
  readers_enter(&readers, 3);
  uint64_t tag = readers_tag(&readers);
  assert_false(readers_passed(&readers, tag));
  readers_enter(&readers, 5); /* too late to see it */
  readers_leave(&readers, 3);
  assert_true(readers_passed(&readers, tag));
  uint64_t next = readers_tag(&readers);
  assert_false(readers_passed(&readers, next));
  assert_true(readers_passed(&readers, tag));
  readers_enter(&readers, READERS_MAX - 1);
  readers_leave(&readers, 5);
  assert_true(readers_passed(&readers, next));
  assert_false(readers_passed(&readers, readers_tag(&readers)));
  readers_leave(&readers, READERS_MAX - 1);
  assert_true(readers_passed(&readers, readers_tag(&readers)));
}

/* Two objects that one pointer leads to by turns; the one that was taken away is spoilt as soon as
 * nobody looks. */
struct play {
  struct readers readers;
  _Atomic(uint64_t *) now;
  atomic_bool stop;
  atomic_uint bad, looks;
};

struct reader {
  struct play *play;
  uint32_t place;
};

static void *look(void *arg) {
  const struct reader *r = arg;
  struct play *p = r->play;
  while (!atomic_load(&p->stop)) {
    readers_enter(&p->readers, r->place);
    const uint64_t *at = atomic_load_explicit(&p->now, memory_order_acquire);
    for (int i = 0; i < 20; i++)
      if (*at != 42) atomic_fetch_add(&p->bad, 1);
    readers_leave(&p->readers, r->place);
    atomic_fetch_add(&p->looks, 1);
  }
  return NULL;
}

static void threads_never_see_what_was_given_back(void **state) {
  static struct play p;
  pthread_t threads[3];
  struct reader looking[3];
  uint64_t *old = malloc(sizeof *old), *new;
  uint32_t rounds = 0;
  (void)state;
  *old = 42;
  readers_init(&p.readers);
  atomic_init(&p.now, old);
  for (uint32_t i = 0; i < 3; i++) {
    looking[i] = (struct reader){&p, i * 30};
    assert_int_equal(pthread_create(&threads[i], NULL, look, &looking[i]), 0);
  }
  while (rounds < 20000 || atomic_load(&p.looks) < 1000) {
    old = atomic_load(&p.now);
    new = malloc(sizeof *new);
    *new = 42;
    atomic_store_explicit(&p.now, new, memory_order_release);
    uint64_t tag = readers_tag(&p.readers);
    while (!readers_passed(&p.readers, tag)) {
    }
    *old = 0;
    free(old);
    rounds++;
  }
  atomic_store(&p.stop, true);
  for (uint32_t i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  assert_int_equal(atomic_load(&p.bad), 0);
  free(atomic_load(&p.now));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(who_looks_is_waited_for),
                                     cmocka_unit_test(threads_never_see_what_was_given_back)};
  return cmocka_run_group_tests_name("readers", tests, NULL, NULL);
}
