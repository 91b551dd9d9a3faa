/* args.h - the command line of the tools: a table of options, checked in one place.
 *
 * --name=value and --name value both work; -- ends the options. A bad value is reported with
 * the option, the value and what is legal, and the tool exits with ARGS_USAGE. */
#ifndef TOOLS_ARGS_H
#define TOOLS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARGS_USAGE 2 /* exit status */

enum arg_kind {
  ARG_FLAG = 1, /* bool *; no value, or =0 and =1; or a word in choices, as =1 */
  ARG_TEXT,     /* const char **; not empty */
  ARG_NUMBER,   /* uint64_t *; min to max */
  ARG_SIZE,     /* uint64_t *; min to max bytes, with k, M, G or T (powers of 1024) */
  ARG_SECONDS,  /* double *; 0.001 to max, with ms, s, m or h */
  ARG_CHOICE,   /* int *; place of the word in choices */
};

struct arg {
  const char *name; /* without the dashes */
  enum arg_kind kind;
  void *value;
  uint64_t min, max, unit; /* unit: the value must be a multiple, 0 and 1: any */
  const char *choices;     /* "one|two|three" */
  const char *help;        /* one line */
  bool *given;             /* set when the option was on the command line; may be NULL */
};

/* Takes the options out of argv[1..argc) and leaves the other words in words[0..max). Returns
 * their number, or -EINVAL after it has written one message to stderr. The table ends with a
 * NULL name. */
int args_parse(const char *tool, const struct arg *table, int argc, char **argv, const char **words,
               int max);
void args_help(const struct arg *table);

/* "64k" to 65536. 0, or -EINVAL. */
int args_size(const char *text, uint64_t *bytes);
/* The word at that place of "one|two|three", in a buffer of the caller's. */
const char *args_choice(const char *choices, int index, char *word, size_t word_bytes);

#endif
