/* settings.h - the settings that `shard-bench tune` measures for a store: a small text file, as a
 * rule named "settings" in the store's directory. docs/tuning.md has its format.
 *
 * It only makes a store faster, so nothing that stands in it stops an open: a file that is damaged,
 * or not ours to read, is left alone as a whole, with one warning that names the line and the
 * remedy. Whoever opened the store may have edited it, or somebody else: it is bytes from outside.
 */
#ifndef RUNTIME_SETTINGS_H
#define RUNTIME_SETTINGS_H

#include "shards/base/base.h"

#define SETTINGS_NAME      "settings"
#define SETTINGS_BYTES_MAX 4096u

enum flush_method {
  FLUSH_METHOD_DEFAULT = 0, /* FUA */
  FLUSH_METHOD_FUA = 1,     /* roots are written with FUA (RWF_DSYNC) */
  FLUSH_METHOD_AFTER = 2,   /* roots are written, then their file is flushed */
};
struct settings {
  uint32_t poll_us, queue_depth; /* 0: the file does not say */
  uint32_t flush_method;
};

/* All of the text, or nothing: -EINVAL, and why is "line 3: ..." with what is legal. */
int settings_parse(struct settings *s, const char *text, size_t bytes, char *why, size_t why_bytes);
/* Of the store `where`, if that is a directory; or of the file `path` (NULL: the directory's; "":
 * none). Zeros if there is none or it is refused. note: one line on where they are from, "" if
 * there are none. -ENOENT: path was given, and is not there. */
int settings_read(struct settings *s, const char *where, const char *path, char *note,
                  size_t note_bytes, const struct logger *logger);

#endif
