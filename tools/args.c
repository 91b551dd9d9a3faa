/* args.c - see args.h. */
#include "tools/args.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Digits only: strtoull() would take signs and blanks, too. */
static int parse_digits(const char *text, const char **end, uint64_t *value) {
  uint64_t v = 0;
  const char *p = text;
  for (; isdigit((unsigned char)*p); p++)
    if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
        __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
      return -EINVAL;
  *end = p;
  *value = v;
  return p == text ? -EINVAL : 0;
}

static int unit_shift(char c) {
  switch (tolower((unsigned char)c)) {
  case 'k':
    return 10;
  case 'm':
    return 20;
  case 'g':
    return 30;
  case 't':
    return 40;
  default:
    return -1;
  }
}

int args_size(const char *text, uint64_t *bytes) {
  const char *end;
  uint64_t v;
  if (parse_digits(text, &end, &v) < 0) return -EINVAL;
  if (*end) {
    int shift = unit_shift(*end++);
    if (shift < 0 || v > UINT64_MAX >> shift) return -EINVAL;
    v <<= shift;
    if (strcasecmp(end, "ib") == 0 || strcasecmp(end, "b") == 0) end += strlen(end);
    if (*end) return -EINVAL;
  }
  *bytes = v;
  return 0;
}

static int parse_seconds(const char *text, double *seconds) {
  char *end;
  if (!isdigit((unsigned char)*text) && *text != '.') return -EINVAL;
  errno = 0;
  double v = strtod(text, &end);
  if (errno || end == text) return -EINVAL;
  if (strcmp(end, "ms") == 0)
    v /= 1000;
  else if (strcmp(end, "m") == 0)
    v *= 60;
  else if (strcmp(end, "h") == 0)
    v *= 3600;
  else if (*end && strcmp(end, "s") != 0)
    return -EINVAL;
  *seconds = v;
  return 0;
}

const char *args_choice(const char *choices, int index, char *word, size_t word_bytes) {
  for (; index > 0 && choices; index--) {
    choices = strchr(choices, '|');
    if (choices) choices++;
  }
  size_t n = choices ? strcspn(choices, "|") : 0;
  snprintf(word, word_bytes, "%.*s", (int)n, choices ? choices : "");
  return word;
}

static int find_choice(const char *choices, const char *text) {
  char word[32];
  for (int i = 0; *args_choice(choices, i, word, sizeof(word)); i++)
    if (strcmp(word, text) == 0) return i;
  return -EINVAL;
}

static void print_size(char *buf, size_t bytes, uint64_t v) {
  static const char units[] = "\0kMGT";
  int u = 0;
  while (u < 4 && v >= 1024 && v % 1024 == 0) v /= 1024, u++;
  snprintf(buf, bytes, "%" PRIu64 "%.1s", v, units + u);
}

static void legal(const struct arg *a, char *buf, size_t bytes) {
  char low[32], high[32], unit[32];
  switch (a->kind) {
  case ARG_FLAG:
    snprintf(buf, bytes, "no value, or 0 or 1%s%s", a->choices ? ", or " : "",
             a->choices ? a->choices : "");
    return;
  case ARG_TEXT:
    snprintf(buf, bytes, "any text that is not empty");
    return;
  case ARG_NUMBER:
    snprintf(buf, bytes, "a whole number from %" PRIu64 " to %" PRIu64, a->min, a->max);
    return;
  case ARG_SIZE:
    print_size(low, sizeof(low), a->min);
    print_size(high, sizeof(high), a->max);
    print_size(unit, sizeof(unit), a->unit);
    snprintf(buf, bytes, "%s to %s (suffixes k, M, G, T)%s%s", low, high,
             a->unit > 1 ? ", a multiple of " : "", a->unit > 1 ? unit : "");
    return;
  case ARG_SECONDS:
    snprintf(buf, bytes, "0.001 to %" PRIu64 " seconds (suffixes ms, s, m, h)", a->max);
    return;
  case ARG_CHOICE:
    snprintf(buf, bytes, "one of %s", a->choices);
    return;
  }
}

static int refuse(const char *tool, const struct arg *a, const char *value) {
  char range[256];
  legal(a, range, sizeof(range));
  fprintf(stderr, "%s: --%s=%s: not a legal value; legal: %s\n", tool, a->name, value, range);
  return -EINVAL;
}

static bool in_range(const struct arg *a, uint64_t v) {
  return v >= a->min && v <= a->max && (a->unit <= 1 || v % a->unit == 0);
}

static int set_value(const char *tool, const struct arg *a, const char *text) {
  const char *end;
  uint64_t v = 0;
  double s = 0;
  switch (a->kind) {
  case ARG_FLAG:
    if (text && strcmp(text, "0") != 0 && strcmp(text, "1") != 0 &&
        find_choice(a->choices, text) < 0)
      return refuse(tool, a, text);
    *(bool *)a->value = !text || strcmp(text, "0") != 0;
    break;
  case ARG_TEXT:
    if (!*text) return refuse(tool, a, text);
    *(const char **)a->value = text;
    break;
  case ARG_NUMBER:
    if (parse_digits(text, &end, &v) < 0 || *end || !in_range(a, v)) return refuse(tool, a, text);
    *(uint64_t *)a->value = v;
    break;
  case ARG_SIZE:
    if (args_size(text, &v) < 0 || !in_range(a, v)) return refuse(tool, a, text);
    *(uint64_t *)a->value = v;
    break;
  case ARG_SECONDS:
    if (parse_seconds(text, &s) < 0 || !(s >= 0.001 && s <= (double)a->max))
      return refuse(tool, a, text);
    *(double *)a->value = s;
    break;
  case ARG_CHOICE: {
    int i = find_choice(a->choices, text);
    if (i < 0) return refuse(tool, a, text);
    *(int *)a->value = i;
    break;
  }
  }
  if (a->given) *a->given = true;
  return 0;
}

/* Dashes and underscores are the same, also to who has learned fio. */
static char letter(char c) { return c == '_' ? '-' : c; }

static const struct arg *find_arg(const struct arg *table, const char *name, size_t n) {
  for (; table->name; table++) {
    size_t i = 0;
    while (i < n && letter(table->name[i]) == letter(name[i])) i++;
    if (i == n && !table->name[n]) return table;
  }
  return NULL;
}

enum { NAME_MAX_BYTES = 32 };

/* Letters to be put in, left out, exchanged, or swapped with their neighbour to make one of the
 * other (optimal string alignment). */
static size_t distance(const char *a, size_t a_bytes, const char *b) {
  size_t rows[3][NAME_MAX_BYTES + 1], b_bytes = strlen(b);
  if (a_bytes > NAME_MAX_BYTES || b_bytes > NAME_MAX_BYTES) return NAME_MAX_BYTES;
  for (size_t j = 0; j <= b_bytes; j++) rows[0][j] = j;
  for (size_t i = 1; i <= a_bytes; i++) {
    size_t *row = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b_bytes; j++) {
      bool same = letter(a[i - 1]) == letter(b[j - 1]);
      size_t best = last[j - 1] + !same;
      if (last[j] + 1 < best) best = last[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
      row[j] = best;
    }
  }
  return rows[a_bytes % 3][b_bytes];
}

/* The option that may have been meant; NULL: none is like it. */
static const struct arg *nearest(const struct arg *table, const char *name, size_t n) {
  const struct arg *best = NULL;
  size_t least = n / 3 + 2;
  for (; table->name; table++) {
    size_t d = distance(name, n, table->name);
    if (d >= least) continue;
    least = d;
    best = table;
  }
  return best;
}

/* One option; *taken says how many words of argv it used. */
static int take_option(const char *tool, const struct arg *table, char **argv, int left,
                       int *taken) {
  const char *name = argv[0] + 2, *equals = strchr(name, '=');
  size_t n = equals ? (size_t)(equals - name) : strlen(name);
  const struct arg *a = find_arg(table, name, n);
  *taken = 1;
  if (!a) {
    const struct arg *meant = nearest(table, name, n);
    fprintf(stderr, "%s: unknown option --%.*s; ", tool, (int)n, name);
    if (meant) fprintf(stderr, "did you mean --%s? ", meant->name);
    fprintf(stderr, "See %.*s --help\n", (int)strcspn(tool, ":"), tool);
    return -EINVAL;
  }
  if (equals || a->kind == ARG_FLAG) return set_value(tool, a, equals ? equals + 1 : NULL);
  if (left < 2) {
    char range[256];
    legal(a, range, sizeof(range));
    fprintf(stderr, "%s: --%s needs a value: %s\n", tool, a->name, range);
    return -EINVAL;
  }
  *taken = 2;
  return set_value(tool, a, argv[1]);
}

int args_parse(const char *tool, const struct arg *table, int argc, char **argv, const char **words,
               int max) {
  int count = 0, taken = 1;
  bool options = true;
  for (int i = 1; i < argc; i += taken) {
    taken = 1;
    if (options && strcmp(argv[i], "--") == 0) {
      options = false;
    } else if (options && argv[i][0] == '-' && argv[i][1] == '-') {
      int r = take_option(tool, table, argv + i, argc - i, &taken);
      if (r < 0) return r;
    } else if (options && argv[i][0] == '-' && argv[i][1]) {
      fprintf(stderr, "%s: unknown option %s: options begin with two dashes; see %s --help\n", tool,
              argv[i], tool);
      return -EINVAL;
    } else if (count == max) {
      fprintf(stderr, "%s: one word too many: %s; see %s --help\n", tool, argv[i], tool);
      return -EINVAL;
    } else {
      words[count++] = argv[i];
    }
  }
  return count;
}

void args_help(const struct arg *table) {
  for (; table->name; table++) {
    char left[96];
    const char *sample = table->kind == ARG_FLAG      ? ""
                         : table->kind == ARG_CHOICE  ? table->choices
                         : table->kind == ARG_SIZE    ? "SIZE"
                         : table->kind == ARG_SECONDS ? "TIME"
                         : table->kind == ARG_NUMBER  ? "N"
                                                      : "TEXT";
    snprintf(left, sizeof(left), "--%s%s%s", table->name, *sample ? "=" : "", sample);
    printf(strlen(left) > 24 ? "  %s\n  %-24s  %s\n" : "  %-24s%.0s  %s\n", left, "", table->help);
  }
}
