/* fuzz_options.c - options_copy(): structs of older and newer headers, and hostile ones.
 *
 * Input: which struct (1 byte), how large it says it is (2 bytes; the caller has so much memory),
 * then its bytes behind the size; zeros behind them. */
#include <errno.h>
#include <stdlib.h>

#include "api/internal.h"
#include "tests/fuzz/fuzz.h"

#define GUARD 0x5a

static const size_t structs[] = {sizeof(struct sr_format_options), sizeof(struct sr_open_options),
                                 sizeof(struct sr_port_options), sizeof(size_t), 4096};

/* What must come of it, by the rule in the header. */
static int expect(const char *from, size_t says, size_t known) {
  if (says < sizeof(size_t) || says > 4096) return -EINVAL;
  for (size_t i = known; i < says; i++)
    if (from[i]) return -E2BIG;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  size_t known = structs[feed_u8(&f) % array_size(structs)], says = feed_u16(&f);
  if (says == 0xffff) says = SIZE_MAX;
  /* What is out of range must not be believed: then there is no more than the size itself. */
  size_t there = says < sizeof says || says > 4096 ? sizeof says : says;
  char *from = fuzz_alloc(there), *to = fuzz_alloc(known + 8);
  memcpy(from, &says, sizeof says);
  feed_bytes(&f, from + sizeof says, there - sizeof says);
  memset(to, GUARD, known + 8);
  int r = options_copy(to, known, from);
  check(r == expect(from, says, known));
  for (size_t i = known; i < known + 8; i++) check(to[i] == GUARD);
  for (size_t i = 0; r == 0 && i < known; i++) check(to[i] == (i < says ? from[i] : 0));
  check(options_copy(to, known, NULL) == 0);
  for (size_t i = 0; i < known; i++) check(to[i] == 0);
  free(to);
  free(from);
  return 0;
}
