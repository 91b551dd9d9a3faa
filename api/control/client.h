/* client.h - asks a running shard-host through its control socket: one JSON object a line out, one
 * in. docs/host-control.md has the protocol. A client belongs to one thread at a time. */
#ifndef API_CONTROL_CLIENT_H
#define API_CONTROL_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "api/control/json.h"

struct control_client;

/* wait_ms: for each answer, 0: for ever. Errors of connect(), -ENAMETOOLONG. */
int control_open(struct control_client **client, const char *path, uint32_t wait_ms);
/* NULL is fine. */
void control_close(struct control_client *client);

/* A request as it is, without a newline, and the reply as it comes: good or bad. -ECONNRESET: the
 * daemon hung up; -ETIMEDOUT; -EBADMSG: it answered something that is no JSON. `why` (may be NULL)
 * is one line after an error. After one the client is good for nothing but control_close(). */
int control_ask_line(struct control_client *client, const char *line, struct js **reply, char *why,
                     size_t why_bytes);
/* Takes the request. 0 and the reply if it is a good one; what the daemon says, -errno, if not. */
int control_ask(struct control_client *client, struct js *request, struct js **reply, char *why,
                size_t why_bytes);

bool control_is_ok(const struct js *reply);
/* {"do":what} */
struct js *control_request(const char *what);

#endif
