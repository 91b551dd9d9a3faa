/* json.h - the one door to the JSON library: trees are built, written, read back.
 * Any thread, one at a time for each tree. Out of memory is fatal: these are small reports. */
#ifndef API_CONTROL_JSON_H
#define API_CONTROL_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct js; /* a node */

struct js *js_object(void);
struct js *js_array(void);
/* Puts a new value into an object, or at the end of an array (key NULL). Text that is not
 * UTF-8 is written with '?' for what is not ASCII; numbers that are not finite as null. */
void js_text(struct js *parent, const char *key, const char *text);
void js_count(struct js *parent, const char *key, uint64_t value);
void js_real(struct js *parent, const char *key, double value);
void js_bool(struct js *parent, const char *key, bool value);
/* The child belongs to the parent from now on. Returns the child. */
struct js *js_add(struct js *parent, const char *key, struct js *child);

/* Indented, with a newline at the end. 0 or -EIO. */
int js_write(const struct js *root, FILE *out);
void js_free(struct js *root);

/* Reads one value from the file; on an error NULL and a message with the line in why. */
struct js *js_read(FILE *in, char *why, size_t why_bytes);
/* The same of `bytes` bytes of text that somebody else made: one value and nothing behind it, no
 * key twice in an object, no zero byte in a text. More than depth_max containers inside one
 * another: refused before any memory is taken for them. */
struct js *js_parse(const char *text, size_t bytes, unsigned depth_max, char *why,
                    size_t why_bytes);
/* On one line, without a newline; the caller frees it. */
char *js_line(const struct js *root);
/* A node by path: "jobs/0/read/iops". NULL if there is none. It belongs to the root. */
const struct js *js_find(const struct js *root, const char *path);
bool js_is_text(const struct js *node);
bool js_is_number(const struct js *node);
bool js_is_bool(const struct js *node);
bool js_is_object(const struct js *node);
bool js_is_array(const struct js *node);
const char *js_text_of(const struct js *node); /* "" if it is no text */
double js_number_of(const struct js *node);    /* numbers and booleans; else 0 */
size_t js_size(const struct js *node);         /* members of an object or array; else 0 */
/* A whole number, not below 0. False if it is something else; *value is untouched then. */
bool js_count_of(const struct js *node, uint64_t *value);
/* For another parent. */
struct js *js_copy(const struct js *node);
/* The member of that very name, slashes and all. */
const struct js *js_member(const struct js *object, const char *key);
/* Calls fn for each member of an object; the first that is not 0 ends it and is returned. */
int js_each(const struct js *object, int (*fn)(void *arg, const char *key, const struct js *value),
            void *arg);

#endif
