/* fuzz_id.c - sr_id_parse(), sr_id_format(): accepted is exactly 1 to 32 hexadecimal digits, with
 * or without 0x, and the number is right.
 *
 * Input: the text. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/shardring.h"
#include "tests/fuzz/fuzz.h"

static bool is_id(const char *text) {
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
  size_t n = strspn(text, "0123456789abcdefABCDEF");
  return n >= 1 && n <= 32 && !text[n];
}

/* The same number written as it is always written. */
static void check_text(const char *text, struct sr_id id) {
  char padded[33], formatted[33];
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
  size_t n = strlen(text);
  memset(padded, '0', sizeof padded);
  for (size_t i = 0; i <= n; i++) padded[32 - n + i] = (char)tolower((unsigned char)text[i]);
  memset(formatted, 'x', sizeof formatted);
  sr_id_format(id, formatted);
  check(strcmp(formatted, padded) == 0);
  struct sr_id again;
  check(sr_id_parse(formatted, &again) == 0);
  check(again.hi == id.hi && again.lo == id.lo);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = fuzz_string(data, size);
  struct sr_id id = {77, 88};
  int r = sr_id_parse(text, &id);
  check(r == (is_id(text) ? 0 : -EINVAL));
  if (r == 0)
    check_text(text, id);
  else
    check(id.hi == 77 && id.lo == 88); /* untouched */
  free(text);
  return 0;
}
