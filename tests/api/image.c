/* image.c - see image.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/api/image.h"

static struct backing_ops image_ops;
static void keep(struct backing *b) { (void)b; } /* the image outlives every open */

void image_load(struct image *x, const char *directory) {
  char path[800];
  memset(x, 0, sizeof *x);
  for (uint32_t i = 0; i < IMAGE_PARTS; i++) {
    struct stat st;
    if (i == 0)
      snprintf(path, sizeof path, "%s/root", directory);
    else
      snprintf(path, sizeof path, "%s/shard-%04u", directory, i - 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) break;
    assert_int_equal(fstat(fd, &st), 0);
    struct backing *b;
    assert_int_equal(backing_open_memory(&b, (uint64_t)st.st_size), 0);
    assert_int_equal(read(fd, b->memory, (size_t)st.st_size), st.st_size);
    close(fd);
    x->owned[i] = b;
    x->backings[i] = *b;
    image_ops = *b->ops;
    image_ops.close = keep;
    x->backings[i].ops = &image_ops;
    snprintf(x->backings[i].name, sizeof x->backings[i].name, "part %u", i);
    x->bytes[i] = b->memory;
    x->parts++;
  }
  assert_true(x->parts > 0);
}

void image_free(struct image *x) {
  check(!x->store);
  for (uint32_t i = 0; i < x->parts; i++) backing_close(x->owned[i]);
}

static void collect(void *arg, const struct damage *d) {
  struct image *x = arg;
  if (x->report_count == IMAGE_REPORTS) return;
  struct image_report *r = &x->reports[x->report_count++];
  *r = (struct image_report){.kind = d->kind,
                             .shard = d->shard,
                             .backing = -1,
                             .block = d->block,
                             .blocks = d->blocks,
                             .id = d->id};
  for (uint32_t i = 0; d->backing && i < x->parts; i++)
    if (strcmp(d->backing, x->backings[i].name) == 0) r->backing = (int)i;
  snprintf(r->what, sizeof r->what, "%s", d->what);
}

static void no_line(void *arg, int level, const char *text) { (void)arg, (void)level, (void)text; }

static uint64_t image_now(void *arg) {
  const struct image *x = arg;
  return x->now_ns;
}

int image_open(struct image *x, enum damaged_mode mode) {
  struct backing *list[IMAGE_PARTS];
  for (uint32_t i = 0; i < x->parts; i++) list[i] = &x->backings[i];
  struct store_config config = {.core_count = 1,
                                .engine_ops = &device_mem,
                                .read_only = true,
                                .no_background = true,
                                .no_pin = true,
                                .queue_depth = 64,
                                .arena_bytes = 1 << 20,
                                .seed = 1,
                                .stepped = true,
                                .logger = {no_line, NULL},
                                .damaged = mode,
                                .damage = {collect, x}};
  struct clock clock = {image_now, x};
  config.clock = &clock;
  x->report_count = 0;
  int r = layout_open_backings(&config.layout, list, x->parts, true, &config.logger);
  if (r) return r;
  r = store_open(&x->store, "image", &config);
  if (r) {
    layout_close(config.layout);
    x->store = NULL;
    return r;
  }
  assert_int_equal(sr_port_open((struct sr_store *)x->store, NULL, &x->port), 0);
  return 0;
}

void image_close(struct image *x) {
  assert_int_equal(sr_port_close(x->port), 0);
  assert_int_equal(store_close(x->store, false), 0);
  x->store = NULL;
}

void image_scrub(struct image *x, struct sr_scrub_status *status) {
  assert_int_equal(sr_scrub_start(x->port, NULL), 0);
  do {
    for (int i = 0; i < 64; i++) store_step(x->store);
    assert_int_equal(sr_scrub_status(x->port, status), 0);
  } while (status->running);
}

void image_forget(struct image *x) {
  struct damage_log *log = &x->store->damage;
  free(log->seen);
  log->seen = NULL;
  log->seen_count = 0;
  x->report_count = 0;
}

const struct image_report *image_find(const struct image *x, uint32_t part, uint64_t block) {
  for (uint32_t i = 0; i < x->report_count; i++) {
    const struct image_report *r = &x->reports[i];
    uint64_t blocks = r->blocks ? r->blocks : 1;
    if (r->backing == (int)part && block >= r->block && block < r->block + blocks) return r;
  }
  return NULL;
}
