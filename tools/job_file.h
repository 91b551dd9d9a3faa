/* job_file.h - a list of runs in a file, in the INI form of fio's job files:
 *
 *   [global]            options of all sections below it
 *   store=/data/store
 *   [first]             a run; its name
 *   rw=randread         an option, without dashes
 *   verify              a flag
 *   ; or # begins a comment
 *
 * What options mean is not known here. */
#ifndef TOOLS_JOB_FILE_H
#define TOOLS_JOB_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JOB_SECTIONS_MAX 64u
#define JOB_OPTIONS_MAX  128u /* of a section, global ones included */
#define JOB_LINE_MAX     4096u

struct job_option {
  char *text;            /* "--name=value" or "--name" */
  uint32_t line, column; /* where the name begins, from 1 */
};
struct job_section {
  char *name;
  struct job_option options[JOB_OPTIONS_MAX]; /* global ones first, so that own ones win */
  uint32_t count, line;
};
struct job_file {
  struct job_section sections[JOB_SECTIONS_MAX];
  uint32_t count;
};

/* 0; -EINVAL: why has "line 3, column 7: what is wrong"; -ENOMEM; -EIO. */
int job_file_read(struct job_file *file, FILE *in, char *why, size_t why_bytes);
void job_file_free(struct job_file *file);

#endif
