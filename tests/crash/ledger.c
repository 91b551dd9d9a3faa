/* ledger.c - contents as a function of (seed, unit, member, version). Pure functions, any thread.
 */
#include "tests/crash/ledger.h"

#include <string.h>

#include "tests/random.h"

#define ID_HIGH UINT64_C(0xc5a51)

void ledger_init(struct ledger *l, uint64_t seed) {
  memset(l, 0, sizeof *l);
  l->magic = LEDGER_MAGIC;
  l->seed = seed;
  disks_init(&l->disks);
}

void ledger_raise(_Atomic uint32_t *number, uint32_t version) {
  uint32_t old = atomic_load(number);
  while (old < version && !atomic_compare_exchange_weak(number, &old, version)) {
  }
}

uint32_t unit_members(uint32_t unit) {
  return unit < LEDGER_SINGLES ? 1 : 2 + unit % (LEDGER_MEMBERS - 1);
}

struct sr_id unit_id(uint32_t unit, uint32_t member) {
  return (struct sr_id){ID_HIGH, (uint64_t)unit << 8 | member};
}

bool unit_of_id(struct sr_id id, uint32_t *unit, uint32_t *member) {
  *unit = (uint32_t)(id.lo >> 8);
  *member = (uint32_t)(id.lo & 255);
  return id.hi == ID_HIGH && id.lo >> 8 < LEDGER_UNITS && *member < unit_members(*unit);
}

static struct random stream_of(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version) {
  struct random r = {seed ^ (uint64_t)unit << 40 ^ (uint64_t)member << 32 ^ version};
  r.state = random_next(&r) ^ version;
  return r;
}

int64_t member_bytes(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version) {
  if (version == 0) return -1;
  struct random r = stream_of(~seed, unit, member, version);
  uint64_t dice = random_below(&r, 100);
  if (dice < 12) return -1;
  if (unit >= LEDGER_SINGLES) return (int64_t)random_below(&r, LEDGER_PART_MAX + 1);
  if (dice < 16) return 0;
  if (dice < 50) return (int64_t)random_below(&r, 4097);
  if (dice < 82) return (int64_t)random_below(&r, 32769);
  if (dice < 98) return (int64_t)random_below(&r, 102401);
  return (int64_t)random_below(&r, LEDGER_BLOB_MAX + 1);
}

void member_fill(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version, void *buf,
                 uint64_t bytes) {
  struct random r = stream_of(seed, unit, member, version);
  uint8_t *to = buf;
  for (; bytes >= 8; bytes -= 8, to += 8) {
    uint64_t word = random_next(&r);
    memcpy(to, &word, 8);
  }
  uint64_t word = random_next(&r);
  memcpy(to, &word, bytes);
}

bool member_is(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version, const void *buf,
               int64_t bytes) {
  if (member_bytes(seed, unit, member, version) != bytes) return false;
  struct random r = stream_of(seed, unit, member, version);
  const uint8_t *at = buf;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    uint64_t word = random_next(&r);
    if (memcmp(at, &word, 8) != 0) return false;
  }
  uint64_t word = random_next(&r);
  return bytes <= 0 || memcmp(at, &word, (size_t)bytes) == 0;
}
