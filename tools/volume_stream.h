/* volume_stream.h - a volume, or what has changed in it since a snapshot, as a stream of bytes:
 * docs/format.md, "Volume streams". Any thread, one at a time for each stream.
 *
 * A reader trusts nothing: whatever it hands out lies inside the volume, in ascending order, and
 * its checksum was right. That all of a stream has come is known only when stream_read_next() has
 * returned 0: until then nothing may be made of it that shows. */
#ifndef TOOLS_VOLUME_STREAM_H
#define TOOLS_VOLUME_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_MAGIC       "SHRDVOLS"
#define STREAM_MAGIC_BYTES 8u
#define STREAM_NAME_MAX    255u
#define STREAM_DATA_MAX    262144u /* bytes of one record */
#define STREAM_UNIT        4096u   /* ranges are whole ones, but for the volume's end */

struct stream_info {
  bool incremental;
  uint32_t block_bytes;              /* logical: 512 or 4096 */
  uint64_t size_bytes, to_id;        /* of the volume that it is made of */
  uint64_t from_size_bytes, from_id; /* incremental: of the snapshot that it begins at */
  uint8_t store[16];                 /* UUID of the store where it was made */
  char to[STREAM_NAME_MAX + 1], from[STREAM_NAME_MAX + 1];
};

struct stream_writer {
  int fd;
  uint32_t chain; /* checksum so far of all that is no data */
  uint64_t records, data_bytes;
  uint64_t zeros_at, zeros; /* a range that is not yet written: the next one may continue it */
};
/* Ranges must ascend. 0 or a negative errno of the descriptor, after which the stream is void. */
int stream_write_begin(struct stream_writer *w, int fd, const struct stream_info *info);
int stream_write_data(struct stream_writer *w, uint64_t offset, const void *data, uint32_t bytes);
int stream_write_zeros(struct stream_writer *w, uint64_t offset, uint64_t bytes);
int stream_write_end(struct stream_writer *w);

struct stream_range {
  uint64_t offset, bytes;
  bool zeros;
};
struct stream_reader {
  int fd;
  uint32_t chain;
  uint64_t records, data_bytes, range_end;
  uint64_t at;     /* bytes of the stream that were read */
  const char *why; /* of -EBADMSG: one line */
  struct stream_info info;
};
/* early: bytes that were taken from fd already, to see what it is. Fills info. */
int stream_read_begin(struct stream_reader *r, int fd, const void *early, size_t early_bytes);
/* 1 and a range, its data (unless zeros) in buf of STREAM_DATA_MAX bytes; 0: this was all, and all
 * is right; -EBADMSG: damaged or cut short, see why; another error: of the descriptor. */
int stream_read_next(struct stream_reader *r, struct stream_range *range, void *buf);

/* Whole buffers, whatever the descriptor does. stream_fill(): less only at the end of it. */
int64_t stream_fill(int fd, void *buf, size_t bytes);
int stream_put(int fd, const void *buf, size_t bytes);

#endif
