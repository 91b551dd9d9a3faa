/* test_volumes.c - the catalog of volumes through the public interface: life, names, refusals, what
 * survives a close and a crash. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

static int create(struct sr_port *p, const char *name, uint64_t size) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = size;
  return sr_volume_create(p, name, &o);
}

static int create_striped(struct sr_port *p, const char *name, uint64_t size) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = size;
  o.striped = true;
  o.stripe_bytes = 64 << 10;
  return sr_volume_create(p, name, &o);
}

static struct sr_volume_info stat_of(struct sr_port *p, const char *name) {
  struct sr_volume_info info;
  memset(&info, 0, sizeof info);
  int r = sr_volume_stat(p, name, &info);
  if (r) print_error("stat %s: %s\n", name, strerror(-r));
  assert_int_equal(r, 0);
  return info;
}

static int there(struct sr_port *p, const char *name) {
  struct sr_volume_info info;
  return sr_volume_stat(p, name, &info);
}

/* All names, joined by spaces. */
static void names_of(struct sr_port *p, char *out, size_t bytes) {
  struct sr_volume_info infos[3];
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "";
  int n;
  out[0] = 0;
  while ((n = sr_volume_list(p, after, infos, 3)) > 0)
    for (int i = 0; i < n; i++) {
      size_t used = strlen(out);
      snprintf(out + used, bytes - used, "%s%s", used ? " " : "", infos[i].name);
      snprintf(after, sizeof after, "%s", infos[i].name);
    }
  assert_int_equal(n, 0);
}

static void assert_names(struct sr_port *p, const char *expected) {
  char names[4096];
  names_of(p, names, sizeof names);
  assert_string_equal(names, expected);
}

/* As many as this machine has. */
static uint32_t at_most(uint32_t cores) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  uint32_t n = (uint32_t)CPU_COUNT(&set);
  return cores < n ? cores : n;
}

struct both {
  struct sr_store *s;
  struct sr_port *p;
};

static struct both open_both(struct fixture *f, uint32_t cores) {
  struct sr_open_options o = open_options(f);
  struct both b = {0};
  o.core_count = at_most(cores);
  o.no_pin = true;
  int r = sr_store_open(f->where, &o, &b.s);
  if (r) print_error("open: %s\n%s", strerror(-r), f->log);
  assert_int_equal(r, 0);
  b.p = open_port(b.s);
  return b;
}

static void crash(struct both *b) {
  assert_int_equal(sr_port_close(b->p), 0);
  sr_store_abandon(b->s);
}

static struct both open_memory(uint32_t shards, uint32_t cores) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct both b = {0};
  char where[32];
  snprintf(where, sizeof where, "mem:%uM:%u", 16 * shards, shards);
  o.core_count = at_most(cores);
  o.no_pin = true;
  o.arena_bytes = 8 * MIB;
  assert_int_equal(sr_store_open(where, &o, &b.s), 0);
  b.p = open_port(b.s);
  return b;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static void volumes_are_made_listed_and_removed(void **state) {
  (void)state;
  struct both b = open_memory(4, 3);
  assert_names(b.p, "");
  assert_int_equal(create(b.p, "pear", 1 << 30), 0);
  assert_int_equal(create(b.p, "apple", 4096), 0);
  assert_int_equal(create(b.p, "fig", 512), 0);
  assert_int_equal(create_striped(b.p, "melon", 100 * MIB), 0);
  assert_names(b.p, "apple fig melon pear");
  struct sr_volume_info pear = stat_of(b.p, "pear"), melon = stat_of(b.p, "melon");
  assert_int_equal(pear.size_bytes, 1 << 30);
  assert_int_equal(pear.block_bytes, 512);
  assert_int_equal(pear.stripe_bytes, 0);
  assert_int_equal(pear.used_bytes, 0);
  assert_false(pear.snapshot);
  assert_int_equal(melon.stripe_bytes, 64 << 10);
  assert_int_equal(melon.shard, 0);
  char id[32];
  snprintf(id, sizeof id, "#%llu", (unsigned long long)pear.id);
  assert_string_equal(stat_of(b.p, id).name, "pear");
  assert_int_equal(sr_volume_remove(b.p, id), 0);
  assert_int_equal(there(b.p, id), -ENOENT);
  assert_int_equal(there(b.p, "pear"), -ENOENT);
  assert_int_equal(sr_volume_remove(b.p, "pear"), -ENOENT);
  assert_names(b.p, "apple fig melon");
  assert_int_equal(sr_volume_rename(b.p, "fig", "zebra fig"), 0);
  assert_names(b.p, "apple melon zebra fig");
  assert_int_equal(sr_volume_rename(b.p, "apple", "melon"), -EEXIST);
  assert_int_equal(sr_volume_rename(b.p, "fig", "x"), -ENOENT);
  close_both(b.s, b.p);
}

static void placement_is_by_name_or_spread(void **state) {
  (void)state;
  struct both b = open_memory(4, 2);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = MIB;
  o.on_shard = true;
  o.shard = 2;
  assert_int_equal(sr_volume_create(b.p, "here", &o), 0);
  assert_int_equal(stat_of(b.p, "here").shard, 2);
  o.shard = 4;
  assert_int_equal(sr_volume_create(b.p, "nowhere", &o), -EINVAL);
  uint32_t counts[4] = {0};
  for (int i = 0; i < 40; i++) {
    char name[16];
    snprintf(name, sizeof name, "v%d", i);
    assert_int_equal(create(b.p, name, MIB), 0);
    counts[stat_of(b.p, name).shard]++;
  }
  for (int i = 0; i < 4; i++) assert_in_range(counts[i], 8, 12);
  close_both(b.s, b.p);
}

static void snapshots_and_clones_form_a_tree(void **state) {
  (void)state;
  struct both b = open_memory(4, 3);
  assert_int_equal(create(b.p, "disk", 8 * MIB), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "disk", "s1"), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "disk", "s2"), 0);
  struct sr_volume_info disk = stat_of(b.p, "disk"), s1 = stat_of(b.p, "s1"),
                        s2 = stat_of(b.p, "s2");
  assert_true(s1.snapshot && s2.snapshot && !disk.snapshot);
  assert_int_equal(disk.parent_id, s2.id);
  assert_int_equal(s2.parent_id, s1.id);
  assert_int_equal(s1.parent_id, 0);
  assert_int_equal(disk.depth, 2);
  assert_int_equal(s1.children, 1);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.on_shard = true;
  for (uint32_t i = 0; i < 4; i++) {
    char name[16];
    snprintf(name, sizeof name, "c%u", i);
    o.shard = i;
    assert_int_equal(sr_volume_clone(b.p, "s1", name, &o), 0);
    assert_int_equal(stat_of(b.p, name).shard, i);
    assert_int_equal(stat_of(b.p, name).size_bytes, 8 * MIB);
  }
  assert_int_equal(stat_of(b.p, "s1").children, 5);
  /* In any order: s1 goes on without a name. */
  assert_int_equal(sr_volume_remove(b.p, "s1"), 0);
  assert_int_equal(there(b.p, "s1"), -ENOENT);
  assert_int_equal(stat_of(b.p, "c0").depth, 1);
  assert_int_equal(create(b.p, "s1", MIB), 0);
  assert_int_equal(sr_volume_remove(b.p, "c1"), 0);
  assert_int_equal(sr_volume_remove(b.p, "disk"), 0);
  assert_int_equal(sr_volume_remove(b.p, "s2"), 0);
  assert_int_equal(sr_volume_remove(b.p, "c0"), 0);
  assert_int_equal(sr_volume_remove(b.p, "c3"), 0);
  assert_int_equal(sr_volume_remove(b.p, "c2"), 0);
  assert_names(b.p, "s1");
  close_both(b.s, b.p);
}

static void rollback_goes_back_down_the_chain(void **state) {
  (void)state;
  struct both b = open_memory(3, 2);
  assert_int_equal(create(b.p, "v", 8 * MIB), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "v", "s1"), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "v", "s2"), 0);
  assert_int_equal(sr_volume_clone(b.p, "s1", "c", NULL), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "c", "cs"), 0);
  assert_int_equal(sr_volume_rollback(b.p, "v", "cs"), -EXDEV);
  assert_int_equal(sr_volume_rollback(b.p, "v", "c"), -EXDEV);
  assert_int_equal(sr_volume_rollback(b.p, "s2", "s1"), -EROFS);
  assert_int_equal(sr_volume_rollback(b.p, "v", "nobody"), -ENOENT);
  struct sr_block *block;
  assert_int_equal(sr_volume_open(b.p, "v", NULL, &block), 0);
  assert_int_equal(sr_volume_rollback(b.p, "v", "s1"), -EBUSY);
  assert_int_equal(sr_block_close(b.p, block), 0);
  assert_int_equal(sr_volume_rollback(b.p, "v", "s1"), 0);
  assert_int_equal(stat_of(b.p, "v").parent_id, stat_of(b.p, "s1").id);
  assert_int_equal(stat_of(b.p, "s2").children, 0);
  close_both(b.s, b.p);
}

/* ---- Bad input ---------------------------------------------------------------------------------
 */

static void names_are_checked(void **state) {
  (void)state;
  struct both b = open_memory(1, 1);
  char long_name[300];
  memset(long_name, 'n', sizeof long_name);
  long_name[255] = 0;
  assert_int_equal(create(b.p, long_name, MIB), 0);
  assert_string_equal(stat_of(b.p, long_name).name, long_name);
  long_name[255] = 'n';
  long_name[256] = 0;
  assert_int_equal(create(b.p, long_name, MIB), -ENAMETOOLONG);
  static const char *const bad[] = {
      "",           "a/b",          "#17",          "#",
      "a\nb",       "\x7f",         "\xc2\x85",     "\xff",
      "\xc3",       "\xc0\xaf",     "\xed\xa0\x80", "\xf4\x90\x80\x80",
      "ok\xe2\x82", "\xe0\x80\x80", "a\x80",        "\xf8\x88\x80\x80\x80"};
  assert_int_equal(create(b.p, "v", MIB), 0);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(create(b.p, bad[i], MIB), -EINVAL);
    assert_int_equal(sr_volume_rename(b.p, "v", bad[i]), -EINVAL);
    assert_int_equal(sr_volume_snapshot(b.p, "v", bad[i]), -EINVAL);
  }
  assert_int_equal(create(b.p, "\xc3\xa9t\xc3\xa9 \xf0\x9f\x8d\x90", MIB), 0);
  assert_int_equal(create(b.p, "v", MIB), -EEXIST);
  assert_int_equal(create(b.p, NULL, MIB), -EINVAL);
  assert_int_equal(there(b.p, "#"), -EINVAL);
  assert_int_equal(there(b.p, "#1x"), -EINVAL);
  assert_int_equal(there(b.p, "#99999999999999999999999"), -EINVAL);
  assert_int_equal(there(b.p, "#999999"), -ENOENT);
  close_both(b.s, b.p);
}

static void options_are_checked(void **state) {
  (void)state;
  struct both b = open_memory(2, 1);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  assert_int_equal(create(b.p, "v", 0), -EINVAL);
  assert_int_equal(create(b.p, "v", 100), -EINVAL);
  assert_int_equal(create(b.p, "v", SR_VOLUME_BYTES_MAX + 512), -EINVAL);
  assert_int_equal(create(b.p, "v", UINT64_MAX), -EINVAL);
  o.size_bytes = 4608;
  o.block_bytes = 4096;
  assert_int_equal(sr_volume_create(b.p, "v", &o), -EINVAL);
  o.size_bytes = 8192;
  o.block_bytes = 1024;
  assert_int_equal(sr_volume_create(b.p, "v", &o), -EINVAL);
  o.block_bytes = 4096;
  o.stripe_bytes = 1 << 20;
  assert_int_equal(sr_volume_create(b.p, "v", &o), -EINVAL); /* not striped */
  o.striped = true;
  static const uint32_t stripes[] = {4096, 32 << 10, 96 << 10, 2u << 30};
  for (int i = 0; i < 4; i++) {
    o.stripe_bytes = stripes[i];
    assert_int_equal(sr_volume_create(b.p, "v", &o), -EINVAL);
  }
  o.stripe_bytes = 1 << 20;
  o.on_shard = true;
  assert_int_equal(sr_volume_create(b.p, "v", &o), -EINVAL);
  assert_names(b.p, "");
  assert_int_equal(create(b.p, "max", SR_VOLUME_BYTES_MAX), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "max", "s"), 0);
  assert_int_equal(create(b.p, "v", MIB), 0);
  struct sr_volume_options c = SR_VOLUME_OPTIONS_INIT;
  assert_int_equal(sr_volume_clone(b.p, "v", "c", NULL), -EINVAL); /* no snapshot */
  assert_int_equal(sr_volume_clone(b.p, "none", "c", NULL), -ENOENT);
  assert_int_equal(sr_volume_clone(b.p, "s", "v", NULL), -EEXIST);
  c.size_bytes = MIB;
  assert_int_equal(sr_volume_clone(b.p, "s", "c", &c), -EINVAL); /* smaller */
  c.size_bytes = 0;
  c.block_bytes = 4096;
  assert_int_equal(sr_volume_clone(b.p, "s", "c", &c), -EINVAL);
  c.block_bytes = 0;
  c.striped = true;
  assert_int_equal(sr_volume_clone(b.p, "s", "c", &c), -EINVAL);
  assert_int_equal(sr_volume_snapshot(b.p, "s", "t"), -EROFS);
  assert_names(b.p, "max s v");
  close_both(b.s, b.p);
}

static void cores_may_not_wait(struct sr_port *p, void *arg) {
  int *r = arg;
  struct sr_volume_info info;
  struct sr_block *block;
  r[0] = create(p, "v", MIB);
  r[1] = sr_volume_stat(p, "v", &info);
  r[2] = sr_volume_open(p, "v", NULL, &block);
  __atomic_store_n(&r[3], 1, __ATOMIC_RELEASE);
}

static void a_core_is_refused(void **state) {
  (void)state;
  struct both b = open_memory(1, 1);
  int r[4] = {0};
  assert_int_equal(sr_store_run(b.s, 0, cores_may_not_wait, r), 0);
  while (!__atomic_load_n(&r[3], __ATOMIC_ACQUIRE)) usleep(100);
  for (int i = 0; i < 3; i++) assert_int_equal(r[i], -EDEADLK);
  close_both(b.s, b.p);
}

/* ---- Handles -----------------------------------------------------------------------------------
 */

static void open_volumes_are_held(void **state) {
  (void)state;
  struct both b = open_memory(4, 3);
  struct sr_block *w, *r, *w2;
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  assert_int_equal(create(b.p, "v", 3 * MIB), 0);
  assert_int_equal(sr_volume_open(b.p, "none", NULL, &w), -ENOENT);
  assert_int_equal(sr_volume_open(b.p, "v", NULL, &w), 0);
  assert_int_equal(sr_block_size_bytes(w), 3 * MIB);
  assert_int_equal(sr_block_block_bytes(w), 512);
  assert_false(sr_block_read_only(w));
  assert_int_equal(sr_volume_open(b.p, "v", NULL, &w2), -EBUSY);
  o.read_only = true;
  assert_int_equal(sr_volume_open(b.p, "v", &o, &r), 0);
  assert_true(sr_block_read_only(r));
  o.read_only = false;
  o.share = true;
  assert_int_equal(sr_volume_open(b.p, "v", &o, &w2), 0);
  assert_int_equal(stat_of(b.p, "v").openers, 3);
  assert_true(stat_of(b.p, "v").open_for_writing);
  assert_int_equal(sr_volume_remove(b.p, "v"), -EBUSY);
  assert_int_equal(sr_volume_rename(b.p, "v", "w"), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "w", "s"), 0);
  assert_int_equal(sr_volume_open(b.p, "s", NULL, &r), -EROFS);
  assert_int_equal(sr_block_close(b.p, w2), 0);
  assert_int_equal(sr_block_close(b.p, w), 0);
  assert_false(stat_of(b.p, "w").open_for_writing);
  assert_int_equal(sr_volume_remove(b.p, "w"), -EBUSY);
  assert_int_equal(sr_block_close(b.p, r), 0);
  assert_int_equal(sr_volume_remove(b.p, "w"), 0);
  o.share = false;
  o.read_only = true;
  assert_int_equal(sr_volume_open(b.p, "s", &o, &r), 0);
  assert_int_equal(sr_volume_remove(b.p, "s"), -EBUSY);
  assert_int_equal(sr_block_close(b.p, r), 0);
  assert_int_equal(sr_volume_remove(b.p, "s"), 0);
  assert_names(b.p, "");
  close_both(b.s, b.p);
}

static void striped_volumes_open_in_all_shards(void **state) {
  (void)state;
  struct both b = open_memory(4, 3);
  struct sr_block *w;
  assert_int_equal(create_striped(b.p, "v", MIB + 512), 0);
  assert_int_equal(sr_volume_open(b.p, "v", NULL, &w), 0);
  assert_int_equal(sr_block_size_bytes(w), MIB + 512);
  assert_int_equal(sr_volume_snapshot(b.p, "v", "s"), 0);
  assert_int_equal(sr_volume_clone(b.p, "s", "c", NULL), 0);
  assert_int_equal(stat_of(b.p, "c").stripe_bytes, 64 << 10);
  assert_int_equal(sr_block_close(b.p, w), 0);
  assert_int_equal(sr_volume_remove(b.p, "s"), 0);
  assert_int_equal(sr_volume_remove(b.p, "v"), 0);
  assert_int_equal(sr_volume_remove(b.p, "c"), 0);
  close_both(b.s, b.p);
}

static void a_store_with_open_volumes_stays_open(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct both b = open_both(f, 1);
  struct sr_block *w;
  assert_int_equal(create(b.p, "v", MIB), 0);
  assert_int_equal(sr_volume_open(b.p, "v", NULL, &w), 0);
  assert_int_equal(sr_port_close(b.p), 0);
  assert_int_equal(sr_store_close(b.s), -EBUSY);
  b.p = open_port(b.s);
  assert_int_equal(sr_block_close(b.p, w), 0);
  close_both(b.s, b.p);
}

/* ---- What survives ------------------------------------------------------------------------------
 */

static void make_family(struct sr_port *p) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  assert_int_equal(create(p, "base", 8 * MIB), 0);
  assert_int_equal(create_striped(p, "wide", 8 * MIB), 0);
  assert_int_equal(sr_volume_snapshot(p, "base", "gold"), 0);
  assert_int_equal(sr_volume_snapshot(p, "wide", "wide-gold"), 0);
  o.on_shard = true;
  for (uint32_t i = 0; i < 4; i++) {
    char name[16];
    snprintf(name, sizeof name, "clone%u", i);
    o.shard = i;
    assert_int_equal(sr_volume_clone(p, "gold", name, &o), 0);
  }
  assert_int_equal(sr_volume_clone(p, "wide-gold", "wide-clone", NULL), 0);
  assert_int_equal(sr_volume_remove(p, "gold"), 0);
  assert_int_equal(sr_volume_rename(p, "clone3", "renamed"), 0);
}

#define FAMILY "base clone0 clone1 clone2 renamed wide wide-clone wide-gold"

static void closed_and_reopened(void **state) {
  struct fixture *f = *state;
  static const uint32_t cores[] = {1, 3, 4, 2};
  format_store(f, 4, 16 * MIB);
  struct both b = open_both(f, 3);
  make_family(b.p);
  struct sr_volume_info before = stat_of(b.p, "renamed");
  close_both(b.s, b.p);
  for (int i = 0; i < 4; i++) {
    b = open_both(f, cores[i]);
    assert_names(b.p, FAMILY);
    struct sr_volume_info after = stat_of(b.p, "renamed");
    assert_int_equal(after.id, before.id);
    assert_int_equal(after.parent_id, before.parent_id);
    assert_int_equal(after.depth, 1);
    assert_int_equal(stat_of(b.p, "wide-gold").children, 2);
    close_both(b.s, b.p);
  }
  b = open_both(f, 2);
  static const char *const all[] = {"base",   "wide-gold",  "clone0",  "clone2",
                                    "clone1", "wide-clone", "renamed", "wide"};
  for (int i = 0; i < 8; i++) assert_int_equal(sr_volume_remove(b.p, all[i]), 0);
  close_both(b.s, b.p);
  b = open_both(f, 2);
  assert_names(b.p, "");
  assert_int_equal(create(b.p, "again", MIB), 0);
  close_both(b.s, b.p);
}

static void a_crash_takes_what_was_not_flushed(void **state) {
  struct fixture *f = *state;
  format_store(f, 4, 16 * MIB);
  struct both b = open_both(f, 3);
  make_family(b.p);
  crash(&b);
  b = open_both(f, 3);
  assert_names(b.p, "");
  make_family(b.p);
  assert_int_equal(sr_flush(b.p), 0);
  assert_int_equal(sr_volume_remove(b.p, "renamed"), 0);
  assert_int_equal(sr_volume_remove(b.p, "wide-clone"), 0);
  assert_int_equal(create(b.p, "later", MIB), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "wide", "later too"), 0);
  crash(&b);
  b = open_both(f, 3);
  assert_names(b.p, FAMILY);
  assert_int_equal(stat_of(b.p, "wide-gold").children, 2);
  close_both(b.s, b.p);
}

/* A volume's own flush is enough for what was changed while it was open. */
static void a_flush_of_the_volume_covers_its_changes(void **state) {
  struct fixture *f = *state;
  struct sr_limits limits = SR_LIMITS_INIT;
  limits.ops = (struct sr_bucket){5000, 0, 1000};
  format_store(f, 3, 16 * MIB);
  for (int striped = 0; striped < 2; striped++) {
    struct both b = open_both(f, 2);
    struct sr_block *block;
    if (striped)
      assert_int_equal(create_striped(b.p, "v", 8 * MIB), 0);
    else
      assert_int_equal(create(b.p, "v", 8 * MIB), 0);
    assert_int_equal(sr_volume_open(b.p, "v", NULL, &block), 0);
    assert_int_equal(sr_block_flush(b.p, block), 0);
    for (int step = 0; step < 4; step++) {
      if (step == 0) assert_int_equal(sr_volume_snapshot(b.p, "v", "s"), 0);
      if (step == 1) assert_int_equal(sr_volume_resize(b.p, "v", 4 * MIB, false), 0);
      if (step == 2) assert_int_equal(sr_volume_limit(b.p, "v", &limits), 0);
      if (step == 3) assert_int_equal(sr_volume_rename(b.p, "v", "w"), 0);
      assert_int_equal(sr_block_flush(b.p, block), 0);
      crash(&b);
      b = open_both(f, 2);
      if (step == 0) assert_names(b.p, "s v");
      if (step == 1) assert_int_equal(stat_of(b.p, "v").size_bytes, 4 * MIB);
      struct sr_limits have = SR_LIMITS_INIT;
      if (step == 2) assert_int_equal(sr_volume_limits(b.p, "v", &have, NULL), 0);
      if (step == 2) assert_int_equal(have.ops.size, 5000);
      if (step == 3) assert_names(b.p, "s w");
      assert_int_equal(sr_volume_open(b.p, step == 3 ? "w" : "v", NULL, &block), 0);
    }
    assert_int_equal(sr_block_close(b.p, block), 0);
    assert_int_equal(sr_volume_remove(b.p, "w"), 0);
    assert_int_equal(sr_volume_remove(b.p, "s"), 0);
    close_both(b.s, b.p);
  }
}

static void read_only_stores_change_nothing(void **state) {
  struct fixture *f = *state;
  struct sr_block *block;
  struct sr_block_options ro = SR_BLOCK_OPTIONS_INIT;
  format_store(f, 4, 16 * MIB);
  struct both b = open_both(f, 3);
  make_family(b.p);
  close_both(b.s, b.p);
  struct sr_open_options o = open_options(f);
  o.read_only = true;
  assert_int_equal(sr_store_open(f->where, &o, &b.s), 0);
  b.p = open_port(b.s);
  assert_names(b.p, FAMILY);
  assert_int_equal(create(b.p, "x", MIB), -EROFS);
  assert_int_equal(sr_volume_remove(b.p, "base"), -EROFS);
  assert_int_equal(sr_volume_rename(b.p, "base", "x"), -EROFS);
  assert_int_equal(sr_volume_snapshot(b.p, "base", "x"), -EROFS);
  assert_int_equal(sr_volume_clone(b.p, "wide-gold", "x", NULL), -EROFS);
  assert_int_equal(sr_volume_resize(b.p, "base", MIB, true), -EROFS);
  assert_int_equal(sr_volume_flatten(b.p, "clone0"), -EROFS);
  assert_int_equal(sr_volume_rollback(b.p, "wide", "wide-gold"), -EROFS);
  assert_int_equal(sr_volume_open(b.p, "base", NULL, &block), -EROFS);
  ro.read_only = true;
  assert_int_equal(sr_volume_open(b.p, "base", &ro, &block), 0);
  assert_int_equal(sr_block_close(b.p, block), 0);
  close_both(b.s, b.p);
}

/* ---- Many ---------------------------------------------------------------------------------------
 */

static void thousands_of_clones(void **state) {
  struct fixture *f = *state;
  enum { N = 3000 };
  char name[24];
  format_store(f, 4, 16 * MIB);
  struct both b = open_both(f, 2);
  assert_int_equal(create(b.p, "base", 64 * MIB), 0);
  assert_int_equal(sr_volume_snapshot(b.p, "base", "gold"), 0);
  for (int i = 0; i < N; i++) {
    snprintf(name, sizeof name, "clone-%05d", (i * 7919) % N);
    assert_int_equal(sr_volume_clone(b.p, "gold", name, NULL), 0);
  }
  close_both(b.s, b.p);
  b = open_both(f, 2);
  struct sr_volume_info *infos = calloc(N + 2, sizeof *infos);
  assert_int_equal(sr_volume_list(b.p, "", infos, N + 2), N + 2);
  assert_string_equal(infos[0].name, "base");
  for (int i = 0; i < N; i++) {
    snprintf(name, sizeof name, "clone-%05d", i);
    assert_string_equal(infos[i + 1].name, name);
  }
  assert_string_equal(infos[N + 1].name, "gold");
  assert_int_equal(infos[N + 1].children, N + 1);
  free(infos);
  static struct sr_block *blocks[N];
  for (int i = 0; i < N; i++) {
    snprintf(name, sizeof name, "clone-%05d", i);
    assert_int_equal(sr_volume_open(b.p, name, NULL, &blocks[i]), 0);
  }
  for (int i = 0; i < N; i++) assert_int_equal(sr_block_close(b.p, blocks[i]), 0);
  close_both(b.s, b.p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(volumes_are_made_listed_and_removed),
      cmocka_unit_test(placement_is_by_name_or_spread),
      cmocka_unit_test(snapshots_and_clones_form_a_tree),
      cmocka_unit_test(rollback_goes_back_down_the_chain),
      cmocka_unit_test(names_are_checked),
      cmocka_unit_test(options_are_checked),
      cmocka_unit_test(a_core_is_refused),
      cmocka_unit_test(open_volumes_are_held),
      cmocka_unit_test(striped_volumes_open_in_all_shards),
      cmocka_unit_test_setup_teardown(a_store_with_open_volumes_stays_open, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(closed_and_reopened, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(a_crash_takes_what_was_not_flushed, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(a_flush_of_the_volume_covers_its_changes, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(read_only_stores_change_nothing, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(thousands_of_clones, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests_name("volumes", tests, NULL, NULL);
}
