/* make_corpus.h - the parts of the corpus generator: one function for each kind of bytes. */
#ifndef TESTS_FUZZ_MAKE_CORPUS_H
#define TESTS_FUZZ_MAKE_CORPUS_H

#include "tests/fuzz/fuzz.h"

void corpus_add(const char *target, const char *name, const void *bytes, size_t count);
void corpus_add_text(const char *target, const char *name, const char *text);

/* A growing input. */
struct draft {
  uint8_t bytes[1 << 16];
  size_t count;
};
static inline void draft_bytes(struct draft *d, const void *bytes, size_t count) {
  check(count <= sizeof d->bytes - d->count);
  memcpy(d->bytes + d->count, bytes, count);
  d->count += count;
}
static inline void draft_number(struct draft *d, uint64_t v, size_t bytes) {
  draft_bytes(d, &v, bytes);
}
/* Without the zeros at the end: an input goes on with zeros by itself. */
static inline size_t bytes_used(const void *bytes, size_t count) {
  while (count > 0 && !((const uint8_t *)bytes)[count - 1]) count--;
  return count;
}

void corpus_format(void);  /* make_format.c: identity, root */
void corpus_log(void);     /* make_log.c: entry, frame */
void corpus_region(void);  /* make_region.c: recover */
void corpus_image(void);   /* make_image.c: layout, damaged */
void corpus_text(void);    /* make_text.c: id, names, settings, args, host_command, cpus, options,
                             requests */
void corpus_volume(void);  /* make_volume.c: volume_record, catalog, limit, stream, blocks */
void corpus_message(void); /* make_message.c: message */
void corpus_vhost(void);   /* make_vhost.c: vhost */
void corpus_ring(void);    /* make_ring.c: ring, blk */

#endif
