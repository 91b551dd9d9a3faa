/* ratio.c - see ratio.h. */
#include "tools/ratio.h"

#include <math.h>
#include <stdlib.h>

double ratio_student(double freedom) {
  static const struct {
    double freedom, t;
  } table[] = {{1, 12.71},  {2, 4.303}, {3, 3.182},  {4, 2.776},  {5, 2.571},  {6, 2.447},
               {7, 2.365},  {8, 2.306}, {9, 2.262},  {10, 2.228}, {11, 2.201}, {12, 2.179},
               {14, 2.145}, {16, 2.12}, {18, 2.101}, {20, 2.086}, {25, 2.06},  {30, 2.042},
               {40, 2.021}, {60, 2.0},  {120, 1.98}};
  double t = table[0].t;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
    if (freedom >= table[i].freedom) t = table[i].t;
  return t;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* logs: in the order of measuring; becomes means of neighbours. How many. */
static uint32_t group(double *logs, uint32_t count) {
  if (count <= RATIO_GROUPS) return count;
  uint32_t each = count / RATIO_GROUPS, skip = count % RATIO_GROUPS;
  for (uint32_t g = 0; g < RATIO_GROUPS; g++) {
    double sum = 0;
    for (uint32_t i = 0; i < each; i++) sum += logs[skip + g * each + i];
    logs[g] = sum / each;
  }
  return RATIO_GROUPS;
}

static void set_interval(struct ratio *r, double *logs, uint32_t count) {
  double sum = 0, squares = 0;
  uint32_t n = group(logs, count);
  if (n < 2) return;
  for (uint32_t i = 0; i < n; i++) sum += logs[i];
  double mean = sum / n;
  for (uint32_t i = 0; i < n; i++) squares += (logs[i] - mean) * (logs[i] - mean);
  double half = ratio_student(n - 1) * sqrt(squares / (n - 1) / n);
  r->mean = exp(mean);
  r->low = exp(mean - half);
  r->high = exp(mean + half);
  r->wide = r->high > RATIO_WIDE * r->low;
}

void ratio_of(struct ratio *r, const double *values, uint32_t count) {
  double sorted[RATIO_MAX], logs[RATIO_MAX];
  uint32_t n = 0;
  *r = (struct ratio){0};
  for (uint32_t i = 0; i < count && n < RATIO_MAX; i++)
    if (values[i] > 0 && isfinite(values[i])) sorted[n++] = values[i];
  if (n == 0) return;
  for (uint32_t i = 0; i < n; i++) logs[i] = log(sorted[i]);
  qsort(sorted, n, sizeof(*sorted), by_size);
  r->count = n;
  r->median = (sorted[n / 2] + sorted[(n - 1) / 2]) / 2;
  r->min = sorted[0];
  r->max = sorted[n - 1];
  set_interval(r, logs, n);
}
