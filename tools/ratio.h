/* ratio.h - what repeated ratios say: the median, and an interval of confidence. Any thread.
 *
 * Each value is the ratio of two measurements made one after the other, so that what the machine
 * does meanwhile hits both (paired observations: R. Jain, The Art of Computer Systems Performance
 * Analysis, 1991, section 13.4.1). Twice as fast and half as fast are equally far from 1 only as
 * logarithms, so the interval is that of the mean of the logarithms, by Student's t: the mean is
 * the geometric one (Fleming and Wallace, CACM 29(3), 1986). Slices that follow each other
 * closely may have something in common; of more than RATIO_GROUPS values therefore means of
 * neighbours are taken first (batch means: the same book, section 25.5.2). */
#ifndef TOOLS_RATIO_H
#define TOOLS_RATIO_H

#include <stdbool.h>
#include <stdint.h>

#define RATIO_GROUPS 32u
#define RATIO_MAX    4096u /* values */
#define RATIO_WIDE   1.1   /* an interval whose upper end is so many times the lower one is wide */

struct ratio {
  uint32_t count;
  double median, min, max; /* 0 if there is no value */
  double mean, low, high;  /* geometric mean, 95 % confidence; all 0 with fewer than 2 values */
  bool wide;
};
/* values: at most RATIO_MAX of them; those that are not above 0 are left out. */
void ratio_of(struct ratio *r, const double *values, uint32_t count);

/* Student's t, two-sided, 95 %. Between the entries of its table the one with fewer degrees of
 * freedom is taken: rather too wide. */
double ratio_student(double freedom);

#endif
