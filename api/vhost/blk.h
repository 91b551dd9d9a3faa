/* blk.h - virtio-blk (virtio 1.1, 5.2): what a chain asks for, and the device's configuration.
 * Pure functions on copies; no I/O. */
#ifndef API_VHOST_BLK_H
#define API_VHOST_BLK_H

#include "api/vhost/ring.h"

/* Feature bits, by number. */
enum blk_feature {
  BLK_F_SIZE_MAX = 1,
  BLK_F_SEG_MAX = 2,
  BLK_F_RO = 5,
  BLK_F_BLK_SIZE = 6,
  BLK_F_FLUSH = 9,
  BLK_F_TOPOLOGY = 10,
  BLK_F_CONFIG_WCE = 11,
  BLK_F_MQ = 12,
  BLK_F_DISCARD = 13,
  BLK_F_WRITE_ZEROES = 14,
  VHOST_F_LOG_ALL = 26,
  VIRTIO_F_INDIRECT_DESC = 28,
  VIRTIO_F_EVENT_IDX = 29,
  VHOST_USER_F_PROTOCOL_FEATURES = 30,
  VIRTIO_F_VERSION_1 = 32,
  VIRTIO_F_RING_PACKED = 34,
};
#define BLK_SECTOR_BYTES 512u
#define BLK_SERIAL_BYTES 20u
#define BLK_SEGMENTS_MAX                                                                           \
  254u /* data pieces of a request: seg_max, in a queue that is long enough */
#define BLK_SEGMENT_BYTES_MAX (4u << 20)          /* size_max; nobody minds longer ones */
#define BLK_DISCARD_BYTES_MAX (UINT64_C(2) << 30) /* of a discard or write zeroes; enforced */

enum blk_status { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPPORTED = 2 };
enum blk_kind { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_GET_ID, BLK_DISCARD, BLK_WRITE_ZEROES };

/* Does the driver flush what must be safe? What is reported as the device's cache. Unknown: the
 * driver may have been told or have chosen either, as of a process before us: what it writes is
 * durable at once, until it flushes or the configuration is read. */
enum blk_writeback { BLK_WRITEBACK_OFF = 0, BLK_WRITEBACK_ON = 1, BLK_WRITEBACK_UNKNOWN = 2 };

struct blk_disk {
  uint64_t size_bytes;
  uint32_t block_bytes; /* logical: 512 or 4096 */
  uint32_t align_bytes; /* of requests: 512 for drivers that do not know of block_bytes */
  uint16_t queues;
  uint16_t queue_size_max;
  bool read_only;
  uint8_t writeback; /* enum blk_writeback; atomic: drivers change it, and cores look */
  char serial[BLK_SERIAL_BYTES + 1];
};

struct blk_request {
  enum blk_kind kind;
  uint64_t offset, bytes; /* of the disk, checked against its size; GET_ID: bytes of the answer */
  bool unmap;             /* write zeroes: may give space back */
  struct iovec *data;     /* inside the chain's iov: what is read or written; its lengths sum up to
                             `bytes` (discard and write zeroes: nothing) */
  uint32_t data_count;
  uint8_t *status;     /* the last writable byte; NULL: there is none */
  uint32_t used_bytes; /* to be reported when it went well: bytes written, the status included */
};
/* What a chain that ring_take() found sound asks for. BLK_OK, or the status with which it is to be
 * answered at once. The chain's pieces are cut (header off the front, status off the end).
 *   header     16 bytes, in any number of pieces, copied once
 *   sectors    offset + bytes without overflow, inside the disk, whole logical blocks, at least
 *              one: else IOERR
 *   writes     to a read-only disk: IOERR
 *   discard,   one segment, as is announced: of several, or with flags (but for unmap of a write
 *   zeroes     zeroes): UNSUPPORTED; IOERR beyond BLK_DISCARD_BYTES_MAX
 *   GET_ID     up to 20 bytes of the answer, however many the buffer has
 *   no status  status NULL and IOERR: nothing can be answered
 *   anything else UNSUPPORTED */
enum blk_status blk_parse(const struct blk_disk *disk, struct ring_chain *chain,
                          struct blk_request *request);
/* The byte for the status, whatever the chain asks for: the last one that the device may write;
 * NULL: there is none. Also of a chain that ring_take() refused. */
uint8_t *blk_status_of(const struct ring_chain *chain);
/* Copies the serial to a GET_ID's data, with zeros behind it. */
void blk_put_id(const struct blk_disk *disk, const struct blk_request *request);

/* Features to be offered (VIRTIO and vhost-user ones). flush: FLUSH and CONFIG_WCE too. */
uint64_t blk_features(const struct blk_disk *disk, bool flush);

#define BLK_CONFIG_BYTES 60u
/* struct virtio_blk_config, little endian. */
void blk_config(const struct blk_disk *disk, uint8_t config[BLK_CONFIG_BYTES]);
/* It has flushed, or is about to learn that it must: what was unknown is ON. Any thread. */
void blk_expect_flushes(struct blk_disk *disk);
#define BLK_CONFIG_WRITEBACK 32u /* offset of the one byte that a driver may write */

#endif
