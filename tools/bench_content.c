/* bench_content.c - names and contents of blobs: functions of a number and the seed, so that
 * nothing need be remembered to check what is read.
 *
 * A blob is a row of 512-byte sectors. Each begins with 16 bytes that depend on the blob's
 * number, the sector's place and the seed; the rest is one fixed pattern. So a blob is made
 * or remade by a few stores, and a sector of another blob or place is always noticed. */
#include "tools/bench.h"

#include <string.h>

#define SECTOR 512u
#define STAMP  16u

static uint64_t mix(uint64_t x) {
  x ^= x >> 32;
  x *= UINT64_C(0xd6e8feb86659fd93);
  x ^= x >> 32;
  x *= UINT64_C(0xd6e8feb86659fd93);
  return x ^ x >> 32;
}

struct sr_id bench_id(uint64_t number, uint64_t seed) {
  uint64_t lo = (number + 1) * UINT64_C(0x9e3779b97f4a7c15); /* odd: no two numbers share it */
  return (struct sr_id){.hi = (lo ^ seed) * UINT64_C(0xc2b2ae3d27d4eb4f), .lo = lo};
}

static void make_sector(uint8_t sector[SECTOR], uint64_t number, uint64_t seed, uint64_t place) {
  uint64_t stamp[2] = {mix(number ^ mix(seed)), mix(place + 1) ^ number};
  memcpy(sector, stamp, STAMP);
  for (uint32_t i = STAMP; i < SECTOR; i++) sector[i] = (uint8_t)(i * 167 + (i >> 8) * 59);
}

/* Calls for each piece of [offset, offset + bytes) that lies in one sector. */
static bool walk(uint8_t *buf, const uint8_t *old, uint64_t number, uint64_t seed, uint64_t offset,
                 uint64_t bytes) {
  uint8_t sector[SECTOR];
  make_sector(sector, number, seed, 0);
  for (uint64_t done = 0; done < bytes;) {
    uint64_t at = offset + done, in = at % SECTOR, left = bytes - done;
    uint64_t n = left < SECTOR - in ? left : SECTOR - in;
    uint64_t place = mix(at / SECTOR + 1) ^ number;
    memcpy(sector + 8, &place, sizeof(place));
    if (old && memcmp(old + done, sector + in, n) != 0) return false;
    if (buf) memcpy(buf + done, sector + in, n);
    done += n;
  }
  return true;
}

void bench_fill(void *buf, uint64_t number, uint64_t seed, uint64_t offset, uint64_t bytes) {
  walk(buf, NULL, number, seed, offset, bytes);
}

bool bench_matches(const void *buf, uint64_t number, uint64_t seed, uint64_t offset,
                   uint64_t bytes) {
  return walk(NULL, buf, number, seed, offset, bytes);
}

void bench_stamp(void *buf, uint64_t number, uint64_t seed, uint64_t offset, uint64_t bytes) {
  uint64_t stamp[2] = {mix(number ^ mix(seed)), 0};
  if (offset % SECTOR || bytes % SECTOR) {
    bench_fill(buf, number, seed, offset, bytes);
    return;
  }
  for (uint64_t at = 0; at < bytes; at += SECTOR) {
    stamp[1] = mix((offset + at) / SECTOR + 1) ^ number;
    memcpy((uint8_t *)buf + at, stamp, STAMP);
  }
}
