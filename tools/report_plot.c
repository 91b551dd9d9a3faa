/* report_plot.c - plots as SVG: curves over two axes, each linear from 0 or logarithmic. */
#include "tools/report.h"

#include <math.h>
#include <string.h>

/* In units of the picture, which the page scales to its width. */
enum { WIDTH = 420, HEIGHT = 250, LEFT = 58, RIGHT = 20, TOP = 10, BOTTOM = 38, TICKS_MAX = 24 };

void report_text(FILE *out, const char *text) {
  for (; *text; text++) {
    switch (*text) {
    case '<':
      fputs("&lt;", out);
      break;
    case '>':
      fputs("&gt;", out);
      break;
    case '&':
      fputs("&amp;", out);
      break;
    case '"':
      fputs("&quot;", out);
      break;
    default:
      if ((unsigned char)*text >= ' ') fputc(*text, out);
    }
  }
}

static const char *scaled(double v, const double *scales, const char *const *units, int count,
                          char *text, size_t bytes) {
  int i = 0;
  while (i + 1 < count && fabs(v) < scales[i]) i++;
  snprintf(text, bytes, "%.3g%s%s", v / scales[i], *units[i] ? " " : "", units[i]);
  return text;
}

const char *report_number(double v, enum report_unit unit, char *text, size_t bytes) {
  static const double times[] = {1e9, 1e6, 1e3, 1};
  static const char *const time_units[] = {"s", "ms", "us", "ns"};
  static const double counts[] = {1e9, 1e6, 1e3, 1};
  static const char *const count_units[] = {"G", "M", "k", ""};
  if (unit == UNIT_NS) return scaled(v, times, time_units, 4, text, bytes);
  if (unit == UNIT_COUNT) return scaled(v, counts, count_units, 4, text, bytes);
  if (unit == UNIT_SECONDS) return snprintf(text, bytes, "%.4g s", v), text;
  snprintf(text, bytes, "%.7g %%", v > 1 ? 100 * (1 - 1 / v) : 0);
  return text;
}

/* ---- Scales ---------------------------------------------------------------------------------- */

struct scale {
  bool log, tight;            /* tight: ends where the data does */
  double low, high, from, to; /* values, and where they lie */
  double ticks[TICKS_MAX];
  int tick_count;
};

static double place(const struct scale *s, double v) {
  double share = s->log ? (log10(v) - log10(s->low)) / (log10(s->high) - log10(s->low))
                        : (v - s->low) / (s->high - s->low);
  return s->from + share * (s->to - s->from);
}

static void add_tick(struct scale *s, double v) {
  if (s->tick_count < TICKS_MAX) s->ticks[s->tick_count++] = v;
}

/* 1, 2 or 5 of a power of ten, about five of them. */
static void linear_ticks(struct scale *s) {
  double raw = s->high / 5, power = pow(10, floor(log10(raw))), step = power;
  if (raw > power) step = 2 * power;
  if (raw > 2 * power) step = 5 * power;
  if (raw > 5 * power) step = 10 * power;
  s->low = 0;
  if (!s->tight) s->high = ceil(s->high / step - 1e-9) * step;
  for (double v = 0; v <= s->high * 1.0001; v += step) add_tick(s, v);
}

/* The next 1, 2 or 5 of a power of ten, below or above. */
static double round_to(double v, bool up) {
  static const double steps[] = {1, 2, 5, 10};
  double power = pow(10, floor(log10(v) + 1e-9));
  int i = 0;
  while (steps[i + 1] * power <= v * 1.0001) i++;
  return up && steps[i] * power < v * 0.9999 ? steps[i + 1] * power : steps[i] * power;
}

/* Powers of ten; where there are few of them, 2 and 5 times them as well. */
static void log_ticks(struct scale *s) {
  bool few = s->high / s->low < 100;
  double power = pow(10, floor(log10(s->low) + 1e-9));
  for (; power <= s->high * 1.0001; power *= 10) {
    static const double steps[] = {1, 2, 5};
    for (int i = 0; i < (few ? 3 : 1); i++)
      if (power * steps[i] >= s->low * 0.9999 && power * steps[i] <= s->high * 1.0001)
        add_tick(s, power * steps[i]);
  }
}

static bool is_shown(const struct scale *s, double v) { return isfinite(v) && (!s->log || v > 0); }

/* False: there is nothing to show. */
static bool make_scale(struct scale *s, const struct report_plot *p, bool x) {
  *s = (struct scale){.log = x ? p->x.log : p->y.log, .low = INFINITY, .high = -INFINITY};
  for (uint32_t c = 0; c < p->count; c++)
    for (uint32_t i = 0; i < p->curves[c].count; i++) {
      double v = x ? p->curves[c].points[i].x : p->curves[c].points[i].y;
      if (!is_shown(s, v)) continue;
      s->low = fmin(s->low, v);
      s->high = fmax(s->high, v);
    }
  if (!(s->low <= s->high)) return false;
  s->tight = x && p->x.unit == UNIT_SECONDS;
  s->from = x ? LEFT : HEIGHT - BOTTOM;
  s->to = x ? WIDTH - RIGHT : TOP;
  if (s->log) {
    if (!x) s->low = round_to(s->low, false), s->high = round_to(s->high, true);
    if (s->high < s->low * 1.2) s->low /= 2, s->high *= 2;
    log_ticks(s);
  } else {
    if (!(s->high > 0)) s->high = 1;
    linear_ticks(s);
  }
  return true;
}

/* ---- Drawing --------------------------------------------------------------------------------- */

static void draw_ticks(FILE *out, const struct scale *s, enum report_unit unit, bool x) {
  char label[32];
  double last = -1e9;
  for (int i = 0; i < s->tick_count; i++) {
    double at = place(s, s->ticks[i]);
    report_number(s->ticks[i], unit, label, sizeof(label));
    if (x) {
      fprintf(out, "<line class=g x1=%.1f x2=%.1f y1=%d y2=%d />", at, at, TOP, HEIGHT - BOTTOM);
      double half = 3.3 * (double)strlen(label);
      if (at - half < last || at + half > WIDTH + 4) continue;
      last = at + half + 4;
      fprintf(out, "<text class=x x=%.1f y=%d>%s</text>", at, HEIGHT - BOTTOM + 14, label);
    } else {
      fprintf(out, "<line class=g x1=%d x2=%d y1=%.1f y2=%.1f />", LEFT, WIDTH - RIGHT, at, at);
      fprintf(out, "<text class=y x=%d y=%.1f>%s</text>", LEFT - 5, at + 4, label);
    }
  }
}

static void draw_curve(FILE *out, const struct report_plot *p, uint32_t c, const struct scale *x,
                       const struct scale *y) {
  const struct report_curve *curve = &p->curves[c];
  fprintf(out, "<polyline class=\"c%u%s\" points=\"", p->colour[c], p->dashed[c] ? " d" : "");
  for (uint32_t i = 0; i < curve->count; i++)
    if (is_shown(x, curve->points[i].x) && is_shown(y, curve->points[i].y))
      fprintf(out, "%.1f,%.1f ", place(x, curve->points[i].x), place(y, curve->points[i].y));
  fputs("\"/>", out);
  for (uint32_t i = 0; p->dots && i < curve->count; i++) {
    char a[32], b[32];
    if (!is_shown(x, curve->points[i].x) || !is_shown(y, curve->points[i].y)) continue;
    fprintf(out, "<circle class=c%u cx=%.1f cy=%.1f r=4><title>%s, %s</title></circle>",
            p->colour[c], place(x, curve->points[i].x), place(y, curve->points[i].y),
            report_number(curve->points[i].x, p->x.unit, a, sizeof(a)),
            report_number(curve->points[i].y, p->y.unit, b, sizeof(b)));
  }
}

void report_plot_add(struct report_plot *p, struct report_curve curve, uint32_t run, bool dashed) {
  if (curve.count == 0 || p->count == 2 * REPORT_RUNS_MAX) return;
  p->curves[p->count] = curve;
  p->colour[p->count] = (uint8_t)run;
  p->dashed[p->count++] = dashed;
}

void report_plot_write(FILE *out, const struct report_plot *p) {
  struct scale x, y;
  if (!make_scale(&x, p, true) || !make_scale(&y, p, false)) return;
  fputs("<figure><figcaption><b>", out);
  report_text(out, p->title);
  fputs("</b><br>", out);
  report_text(out, p->note);
  fprintf(out, "</figcaption><svg viewBox=\"0 0 %d %d\" role=img aria-label=\"", WIDTH, HEIGHT);
  report_text(out, p->title);
  fputs("\">", out);
  draw_ticks(out, &x, p->x.unit, true);
  draw_ticks(out, &y, p->y.unit, false);
  fprintf(out, "<text class=x x=%d y=%d>", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
  report_text(out, p->x.name);
  fputs("</text>", out);
  for (uint32_t c = 0; c < p->count; c++) draw_curve(out, p, c, &x, &y);
  fputs("</svg></figure>\n", out);
}
