/* image.h - a store's files in memory: opened again and again, stepped, in this thread, with what
 * is wrong in them collected. Include after <cmocka.h>. */
#ifndef TESTS_API_IMAGE_H
#define TESTS_API_IMAGE_H

#include "api/shardring.h"
#include "runtime/store.h"

#define IMAGE_PARTS   8u
#define IMAGE_REPORTS 64u

struct image_report {
  enum damage_kind kind;
  uint32_t shard;
  int backing; /* -1: none named */
  uint64_t block, blocks;
  struct blob_id id;
  char what[200];
};
struct image {
  uint32_t parts;
  struct backing *owned[IMAGE_PARTS], backings[IMAGE_PARTS];
  char *bytes[IMAGE_PARTS];
  uint64_t now_ns;     /* the store's clock: set by the test */
  struct store *store; /* while it is open */
  struct sr_port *port;
  struct image_report reports[IMAGE_REPORTS];
  uint32_t report_count;
};

/* Reads the packed files of a store in a directory. */
void image_load(struct image *x, const char *directory);
void image_free(struct image *x);
/* Read-only; every report is kept. 0 or what store_open() says. */
int image_open(struct image *x, enum damaged_mode mode);
void image_close(struct image *x);
/* A whole pass. */
void image_scrub(struct image *x, struct sr_scrub_status *status);
/* Drops all reports; the same damage would be reported again. */
void image_forget(struct image *x);
/* The report that names this block of this part, or that id; NULL. */
const struct image_report *image_find(const struct image *x, uint32_t part, uint64_t block);

#endif
