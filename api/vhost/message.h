/* message.h - vhost-user messages on a UNIX stream socket: receiving, sending, checking. For both
 * sides. (vhost-user protocol specification of QEMU, docs/interop/vhost-user.rst.)
 *
 * A message is a header of 12 bytes, a payload of known size, and up to MESSAGE_FDS_MAX
 * descriptors. Not thread-safe; sockets may be blocking or not. */
#ifndef API_VHOST_MESSAGE_H
#define API_VHOST_MESSAGE_H

#include "shards/base/base.h"

#define MESSAGE_FDS_MAX     8u
#define MESSAGE_BYTES_MAX   (12u + 4096u)
#define MESSAGE_REGIONS_MAX 8u /* of SET_MEM_TABLE */
#define MESSAGE_CONFIG_MAX  256u

enum message_request { /* front-end to back-end */
                       VHOST_GET_FEATURES = 1,
                       VHOST_SET_FEATURES = 2,
                       VHOST_SET_OWNER = 3,
                       VHOST_RESET_OWNER = 4,
                       VHOST_SET_MEM_TABLE = 5,
                       VHOST_SET_LOG_BASE = 6,
                       VHOST_SET_LOG_FD = 7,
                       VHOST_SET_VRING_NUM = 8,
                       VHOST_SET_VRING_ADDR = 9,
                       VHOST_SET_VRING_BASE = 10,
                       VHOST_GET_VRING_BASE = 11,
                       VHOST_SET_VRING_KICK = 12,
                       VHOST_SET_VRING_CALL = 13,
                       VHOST_SET_VRING_ERR = 14,
                       VHOST_GET_PROTOCOL_FEATURES = 15,
                       VHOST_SET_PROTOCOL_FEATURES = 16,
                       VHOST_GET_QUEUE_NUM = 17,
                       VHOST_SET_VRING_ENABLE = 18,
                       VHOST_SET_BACKEND_REQ_FD = 21,
                       VHOST_GET_CONFIG = 24,
                       VHOST_SET_CONFIG = 25,
                       VHOST_GET_INFLIGHT_FD = 31,
                       VHOST_SET_INFLIGHT_FD = 32,
                       VHOST_RESET_DEVICE = 34,
                       VHOST_GET_MAX_MEM_SLOTS = 36,
                       VHOST_ADD_MEM_REG = 37,
                       VHOST_REM_MEM_REG = 38,
                       VHOST_SET_STATUS = 39,
                       VHOST_GET_STATUS = 40,
                       VHOST_SET_DEVICE_STATE_FD = 42,
                       VHOST_CHECK_DEVICE_STATE = 43,
};
enum message_backend_request { VHOST_BACKEND_CONFIG_CHANGE_MSG = 2 };
enum message_protocol_feature { /* by number */
                                VHOST_PF_MQ = 0,
                                VHOST_PF_LOG_SHMFD = 1,
                                VHOST_PF_REPLY_ACK = 3,
                                VHOST_PF_BACKEND_REQ = 5,
                                VHOST_PF_CONFIG = 9,
                                VHOST_PF_BACKEND_SEND_FD = 10,
                                VHOST_PF_INFLIGHT_SHMFD = 12,
                                VHOST_PF_RESET_DEVICE = 13,
                                VHOST_PF_CONFIGURE_MEM_SLOTS = 15,
                                VHOST_PF_STATUS = 16,
                                VHOST_PF_DEVICE_STATE = 19,
};
enum message_flag { MESSAGE_VERSION = 1, MESSAGE_REPLY = 4, MESSAGE_NEED_REPLY = 8 };

struct message_vring_state {
  uint32_t index, num;
};
struct message_vring_addr {
  uint32_t index, flags; /* flags 1: log */
  uint64_t desc_user, used_user, avail_user, log_guest;
};
enum {
  MESSAGE_VRING_NO_FD = 0x100,
  MESSAGE_VRING_INDEX = 0xff
}; /* of the u64 of KICK, CALL, ERR */
struct message_region {
  uint64_t guest, bytes, user, file_offset;
};
struct message_mem_table {
  uint32_t count, padding;
  struct message_region regions[MESSAGE_REGIONS_MAX];
};
struct message_mem_reg {
  uint64_t padding;
  struct message_region region;
};
struct message_config {
  uint32_t offset, bytes, flags;
  uint8_t region[MESSAGE_CONFIG_MAX];
};
/* 24 bytes on the wire as QEMU has it, the padding included; some send 20. QEMU takes only 24. */
struct message_inflight {
  uint64_t mmap_bytes, mmap_offset;
  uint16_t queues, queue_size;
  uint32_t padding;
};
#define MESSAGE_INFLIGHT_SHORT 20u
struct message_log {
  uint64_t bytes, offset;
};
struct message_device_state {
  uint32_t direction, phase;
};

struct message { /* the first 12 bytes, and the payload, as on the wire (but apart) */
  uint32_t request, flags, bytes;
  union {
    uint64_t u64;
    struct message_vring_state state;
    struct message_vring_addr addr;
    struct message_mem_table table;
    struct message_mem_reg reg;
    struct message_config config;
    struct message_inflight inflight;
    struct message_log log;
    struct message_device_state device_state;
    uint8_t raw[4096];
  };
  int fds[MESSAGE_FDS_MAX]; /* received or to be sent; owned by whoever has the message */
  uint32_t fd_count;
};

/* What may come from a socket; it decides what message_receive() lets pass. */
enum message_kind {
  MESSAGE_REQUESTS, /* a front-end's requests; the REPLY flag is malformed */
  MESSAGE_REPLIES,  /* answers and acknowledgements, of both channels: only with that flag */
  MESSAGE_BACKEND_REQUESTS, /* of the channel that SET_BACKEND_REQ_FD gave */
};
/* A receiver collects a message over several reads; begin with a zeroed one (of requests). Surplus
 * descriptors (more than MESSAGE_FDS_MAX, or with a later part of a message) are closed at once,
 * and the message is malformed. */
struct message_reader {
  uint32_t got; /* bytes of header and payload so far */
  enum message_kind kind;
  bool surplus;
  struct message message;
};
/* 1: a whole message is there, checked by message_check_as(), zeros behind its payload, its
 * descriptors (close on exec) the caller's; 0: would block (non-blocking sockets, or SO_RCVTIMEO);
 * -ENODATA: the other side has closed, between messages; else an error after which the connection
 * is of no use: -EBADMSG (malformed, or closed in the middle), -EMSGSIZE (more than 4096 bytes of
 * payload), -ECONNRESET... All descriptors received are closed then. */
int message_receive(int fd, struct message_reader *reader, struct message *message);
/* Sends whole. -EAGAIN: the socket is non-blocking and full (nothing was sent; if a part was, it
 * waits up to 1 s for the rest, then -ETIMEDOUT: of no use any more), -EPIPE... Never raises
 * SIGPIPE. Descriptors stay the caller's. */
int message_send(int fd, const struct message *message);
/* Never waits, whatever the other side makes of the socket's flags. -EAGAIN: full; if a part was
 * sent it is of no use any more. */
int message_send_now(int fd, const struct message *message);
/* A front-end's request. -EBADMSG: version or payload size do not fit what the request must have
 * (the sizes and counts inside of payloads included), the REPLY flag, or there are more descriptors
 * than it may bring (fewer are the caller's to see). Unknown requests pass: the caller answers
 * them. */
int message_check(const struct message *message);
/* The same of each kind. Replies of GET_CONFIG and SET_LOG_BASE may be empty (a failure there). */
int message_check_as(const struct message *message, enum message_kind kind);
/* Closes all of them, and forgets them. */
void message_close_fds(struct message *message);
/* "SET_VRING_NUM"; "unknown request". */
const char *message_name(uint32_t request);

#endif
