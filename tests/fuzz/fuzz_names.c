/* fuzz_names.c - names of stores: layout_split() of lists of devices, "mem:SIZE:SHARDS", "fd:N".
 *
 * Input: the name. Nothing is opened that lies on disk. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "runtime/layout_internal.h"
#include "tests/fuzz/fuzz.h"

#define NAMES_MAX 8u

static void try_split(const char *where) {
  char(*names)[LAYOUT_NAME_BYTES] = fuzz_alloc(NAMES_MAX * sizeof *names);
  int n = layout_split(where, names, NAMES_MAX, &fuzz_silent);
  uint32_t commas = 0;
  for (const char *c = where; *c; c++) commas += *c == ',';
  if (n < 0) {
    check(n == -EINVAL);
  } else { /* put together again they are what they were, up to a comma at the end */
    const char *at = where;
    check(n >= 1 && (uint32_t)n <= NAMES_MAX);
    for (int i = 0; i < n; i++) {
      size_t length = strlen(names[i]);
      check(length > 0 && !strchr(names[i], ','));
      check(strncmp(at, names[i], length) == 0);
      at += length;
      if (i + 1 < n) check(*at++ == ',');
    }
    check(*at == 0);
    check(commas + 1 == (uint32_t)n);
  }
  free(names);
}

/* Digits alone: no sign, no blank. */
static bool read_number(const char **at, uint64_t *v) {
  if (!isdigit((unsigned char)**at)) return false;
  for (*v = 0; isdigit((unsigned char)**at); (*at)++)
    if (__builtin_mul_overflow(*v, UINT64_C(10), v) ||
        __builtin_add_overflow(*v, (uint64_t)(**at - '0'), v))
      return false;
  return true;
}

static bool read_memory(const char *where, uint64_t *bytes, uint64_t *shards) {
  static const char units[] = "kMGT";
  const char *at = where + 4, *unit;
  if (!read_number(&at, bytes)) return false;
  if (*at && (unit = strchr(units, *at))) {
    uint32_t shift = 10 * (uint32_t)(unit - units + 1);
    if (*bytes > UINT64_MAX >> shift) return false;
    *bytes <<= shift;
    at++;
  }
  if (*at == ':') {
    at++;
    if (!read_number(&at, shards) || *shards < 1 || *shards > FORMAT_SHARDS_MAX) return false;
  }
  return *at == 0;
}

static void try_memory(const char *where) {
  uint64_t bytes = 0, shards = 2;
  bool good = read_memory(where, &bytes, &shards);
  if (good && bytes > UINT64_C(1) << 32) return; /* address space of the run */
  struct layout *l = NULL;
  int r = layout_open_memory(&l, where, 2, &fuzz_silent);
  if (!good) check(r == -EINVAL);
  if (r == 0) {
    check(l->memory && l->backing_count == 1);
    check(l->shard_count == shards);
    for (uint32_t s = 0; s < l->shard_count; s++) {
      check(l->regions[s].blocks == bytes / shards >> BLOCK_SHIFT);
      check(l->regions[s].log_blocks < l->regions[s].blocks);
    }
    layout_close(l);
  }
}

/* A descriptor that is open may not be touched, so those with a small number are left out. */
static void try_descriptor(const char *where) {
  const char *at = where + 3;
  uint64_t v = 0;
  bool good = read_number(&at, &v) && *at == 0 && v <= INT32_MAX;
  if (good && v < 1 << 20) return;
  struct backing *b;
  int r = layout_open_device(&b, where, true, &fuzz_silent);
  check(r == (good ? -EBADF : -EINVAL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *where = fuzz_string(data, size);
  try_split(where);
  check(layout_is_memory(where) == (strncmp(where, "mem:", 4) == 0));
  if (layout_is_memory(where)) try_memory(where);
  if (strncmp(where, "fd:", 3) == 0) try_descriptor(where);
  free(where);
  return 0;
}
