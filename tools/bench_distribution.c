/* bench_distribution.c - see bench_distribution.h. */
#include "tools/bench_distribution.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_random.h"

int distribution_parse(const char *text, struct distribution_spec *spec) {
  static const struct {
    const char *name;
    enum distribution_kind kind;
    double most;
  } kinds[] = {{"zipf:", DISTRIBUTION_ZIPF, 100},
               {"pareto:", DISTRIBUTION_PARETO, 0.5},
               {"normal:", DISTRIBUTION_NORMAL, 100}};
  *spec = (struct distribution_spec){DISTRIBUTION_RANDOM, 0};
  if (!text || strcmp(text, "random") == 0) return 0;
  for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
    size_t n = strlen(kinds[i].name);
    char *end;
    if (strncmp(text, kinds[i].name, n) != 0) continue;
    double v = strtod(text + n, &end);
    if (end == text + n || *end || !(v > 0) || v > kinds[i].most) return -EINVAL;
    *spec = (struct distribution_spec){kinds[i].kind, v};
    return 0;
  }
  return -EINVAL;
}

/* ---- Randomness ------------------------------------------------------------------------------ */

static double uniform(struct distribution *d) { return bench_random_unit(&d->random); }

/* Walked until it falls below n, which takes less than two steps in the mean. */
uint64_t distribution_spread(uint64_t at, uint64_t n, unsigned bits) {
  uint64_t mask = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX;
  do {
    at = at * UINT64_C(0x9e3779b97f4a7c15) & mask;
    at ^= at >> (bits / 2 + 1);
    at = at * UINT64_C(0xd6e8feb86659fd93) & mask;
  } while (at >= n);
  return at;
}

/* ---- Zipf ------------------------------------------------------------------------------------ */

/* The density x^-s, its integral (of which one is chosen that is 0 at 1), and the inverse of that.
 * Near s = 1 the integral becomes the logarithm: expm1 and log1p get there without a jump. */
static double density(double x, double s) { return exp(-s * log(x)); }
static double integral(double x, double s) {
  double u = (1 - s) * log(x);
  return log(x) * (fabs(u) > 1e-8 ? expm1(u) / u : 1 + u / 2);
}
static double inverse(double y, double s) {
  double u = y * (1 - s);
  if (u < -1) u = -1; /* by rounding */
  return exp(y * (fabs(u) > 1e-8 ? log1p(u) / u : 1 - u / 2));
}

static void zipf_init(struct distribution *d) {
  double s = d->s = d->spec.parameter;
  d->first = integral(1.5, s) - 1;
  d->last = integral((double)d->n + 0.5, s);
  d->squeeze = 2 - inverse(integral(2.5, s) - density(2, s), s);
}

static uint64_t zipf(struct distribution *d) {
  for (;;) {
    double u = d->last + uniform(d) * (d->first - d->last), x = inverse(u, d->s);
    double k = floor(x + 0.5);
    if (k < 1) k = 1;
    if (k > (double)d->n) k = (double)d->n;
    if (k - x <= d->squeeze || u >= integral(k + 0.5, d->s) - density(k, d->s))
      return (uint64_t)k - 1;
  }
}

/* ---- The others ------------------------------------------------------------------------------ */

static uint64_t below(double x, uint64_t n) {
  if (!(x > 0)) return 0;
  return x < (double)n ? (uint64_t)x : n - 1;
}

/* Box and Muller; what falls outside is drawn again. */
static uint64_t normal(struct distribution *d) {
  double n = (double)d->n, deviation = n * d->spec.parameter / 100, x;
  do x = n / 2 + deviation * sqrt(-2 * log(1 - uniform(d))) * cos(6.283185307179586 * uniform(d));
  while (x < 0 || x >= n);
  return below(x, d->n);
}

uint64_t distribution_pick(struct distribution *d) {
  switch (d->spec.kind) {
  case DISTRIBUTION_ZIPF:
    return distribution_spread(zipf(d), d->n, d->bits);
  case DISTRIBUTION_PARETO:
    return distribution_spread(below((double)d->n * pow(uniform(d), d->exponent), d->n), d->n,
                               d->bits);
  case DISTRIBUTION_NORMAL:
    return normal(d);
  default:
    return (uint64_t)((__uint128_t)bench_random(&d->random) * d->n >> 64);
  }
}

void distribution_init(struct distribution *d, const struct distribution_spec *spec, uint64_t n,
                       uint64_t seed) {
  *d = (struct distribution){.spec = *spec, .n = n};
  d->random = bench_random_seed(seed);
  while (d->bits < 64 && UINT64_C(1) << d->bits < n) d->bits++;
  if (spec->kind == DISTRIBUTION_ZIPF) zipf_init(d);
  if (spec->kind == DISTRIBUTION_PARETO)
    d->exponent = log(spec->parameter) / log(1 - spec->parameter);
}
