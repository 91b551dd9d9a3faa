/* crc32c.c - the one door to ISA-L's CRC32C. Any thread; no state. */
#include "shards/base/crc32c.h"

#include <isa-l/crc.h>

#define CALL_BYTES_MAX (UINT32_C(1) << 30) /* the library takes an int */

/* In the reflected representation bit 31 is the coefficient of x^0, bit 0 that of x^31. */
#define POLYNOMIAL 0x82f63b78u
#define X_TO_0     0x80000000u
#define X_TO_8     0x00800000u

uint32_t crc32c(uint32_t crc, const void *buf, size_t bytes) {
  /* The library's prototype lacks the const; it only reads. */
  unsigned char *at = (unsigned char *)(uintptr_t)buf;
  uint32_t remainder = ~crc;
  while (bytes > 0) {
    size_t part = min_u64(bytes, CALL_BYTES_MAX);
    remainder = crc32_iscsi(at, (int)part, remainder);
    at += part;
    bytes -= part;
  }
  return ~remainder;
}

/* a * b modulo the polynomial, over GF(2). */
static uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (; a; a <<= 1) {
    product ^= b & -(a >> 31);              /* the next coefficient of a, from x^0 up */
    b = (b >> 1) ^ (POLYNOMIAL & -(b & 1)); /* b * x */
  }
  return product;
}

/* A byte of zeros multiplies the remainder by x^8. So the remainder of "a then b" is that of
 * a times x^(8 len b), plus that of b; the two inversions cancel because "b alone" carries the
 * same ones. The power comes by squaring. */
uint32_t crc32c_combine(uint32_t crc1, uint32_t crc2, uint64_t len2) {
  uint32_t power = X_TO_0, square = X_TO_8;
  for (; len2; len2 >>= 1) {
    if (len2 & 1) power = multiply(power, square);
    square = multiply(square, square);
  }
  return multiply(crc1, power) ^ crc2;
}
