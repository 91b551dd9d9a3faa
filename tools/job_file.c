/* job_file.c - see job_file.h. */
#include "tools/job_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct reader {
  struct job_file *file;
  struct job_section global, *section; /* NULL: before the first one */
  uint32_t line;
  char *why;
  size_t why_bytes;
};

static int fail(struct reader *r, size_t column, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct reader *r, size_t column, const char *format, ...) {
  va_list ap;
  int n = snprintf(r->why, r->why_bytes, "line %u, column %zu: ", r->line, column);
  va_start(ap, format);
  if (n > 0 && (size_t)n < r->why_bytes)
    vsnprintf(r->why + n, r->why_bytes - (size_t)n, format, ap);
  va_end(ap);
  return -EINVAL;
}

static void section_free(struct job_section *s) {
  for (uint32_t i = 0; i < s->count; i++) free(s->options[i].text);
  free(s->name);
  *s = (struct job_section){.name = NULL};
}

void job_file_free(struct job_file *file) {
  for (uint32_t i = 0; i < file->count; i++) section_free(&file->sections[i]);
  file->count = 0;
}

static int add_option(struct reader *r, struct job_section *s, char *text, uint32_t line,
                      size_t column) {
  if (!text) return -ENOMEM;
  if (s->count == JOB_OPTIONS_MAX) {
    free(text);
    return fail(r, column, "more than %u options in a section", JOB_OPTIONS_MAX);
  }
  s->options[s->count++] = (struct job_option){text, line, (uint32_t)column};
  return 0;
}

/* ---- Lines ----------------------------------------------------------------------------------- */

static int begin_section(struct reader *r, char *text, size_t column) {
  char *end = strchr(text, ']');
  if (!end) return fail(r, column, "a section's name ends with ]");
  if (end == text + 1) return fail(r, column + 1, "a section without a name");
  if (end[1]) return fail(r, column + (size_t)(end + 1 - text), "nothing may follow the ]");
  *end = 0;
  if (strcmp(text + 1, "global") == 0) {
    r->section = &r->global;
    return 0;
  }
  if (r->file->count == JOB_SECTIONS_MAX)
    return fail(r, column, "more than %u sections", JOB_SECTIONS_MAX);
  struct job_section *s = r->section = &r->file->sections[r->file->count++];
  *s = (struct job_section){.name = strdup(text + 1), .line = r->line};
  int e = s->name ? 0 : -ENOMEM;
  for (uint32_t i = 0; e == 0 && i < r->global.count; i++) {
    const struct job_option *o = &r->global.options[i];
    e = add_option(r, s, strdup(o->text), o->line, o->column);
  }
  return e;
}

/* "name", "name=value", with blanks around both. */
static int take_option(struct reader *r, char *text, size_t column) {
  char *equals = strchr(text, '='), *end = equals ? equals : text + strlen(text);
  const char *value = equals ? equals + 1 + strspn(equals + 1, " \t") : NULL;
  while (end > text && isblank((unsigned char)end[-1])) end--;
  if (!r->section)
    return fail(r, column, "options stand in a section: begin with [global] or [name]");
  if (end == text) return fail(r, column, "a value without a name");
  for (const char *c = text; c < end; c++)
    if (!isalnum((unsigned char)*c) && *c != '_' && *c != '-')
      return fail(r, column + (size_t)(c - text), "'%c' in the name of an option", *c);
  char *option;
  if (asprintf(&option, "--%.*s%s%s", (int)(end - text), text, value ? "=" : "",
               value ? value : "") < 0)
    option = NULL;
  return add_option(r, r->section, option, r->line, column);
}

static int take_line(struct reader *r, char *line) {
  size_t n = strlen(line), skip = strspn(line, " \t");
  while (n > skip && isspace((unsigned char)line[n - 1])) line[--n] = 0;
  char *text = line + skip;
  if (!*text || *text == ';' || *text == '#') return 0;
  return *text == '[' ? begin_section(r, text, skip + 1) : take_option(r, text, skip + 1);
}

int job_file_read(struct job_file *file, FILE *in, char *why, size_t why_bytes) {
  struct reader r = {.file = file, .why = why, .why_bytes = why_bytes};
  char line[JOB_LINE_MAX + 2];
  int e = 0;
  file->count = 0;
  while (e == 0 && fgets(line, sizeof(line), in)) {
    r.line++;
    if (strlen(line) > JOB_LINE_MAX && !strchr(line, '\n'))
      e = fail(&r, JOB_LINE_MAX, "a line of more than %u characters", JOB_LINE_MAX);
    else
      e = take_line(&r, line);
  }
  if (e == 0 && ferror(in)) e = -EIO;
  if (e == 0 && file->count == 0)
    e = fail(&r, 1, "there is no section but [global]: nothing to run");
  section_free(&r.global);
  if (e < 0) job_file_free(file);
  return e;
}
