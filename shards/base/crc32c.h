/* crc32c.h - CRC32C (Castagnoli), the one checksum of data and of everything on disk.
 * Any thread; no state. */
#ifndef SHARDS_BASE_CRC32C_H
#define SHARDS_BASE_CRC32C_H

#include "shards/base/base.h"

/* crc: 0, or the checksum of what comes before buf: crc32c(crc32c(0, a), b) is that of a and b
 * together. With the usual inversion before and after: crc32c(0, "123456789", 9) is 0xe3069283.
 * buf may be NULL when bytes is 0. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t bytes);

/* The checksum of a and b together, from that of a, that of b, and the length of b. Takes up to
 * a microsecond or two, whatever the length: b's bytes are not looked at. */
uint32_t crc32c_combine(uint32_t crc1, uint32_t crc2, uint64_t len2);

#endif
