/* host_sockets.h - the sockets that the daemon listens on. Before any thread is started. */
#ifndef TOOLS_HOST_SOCKETS_H
#define TOOLS_HOST_SOCKETS_H

#include <stdint.h>
#include <sys/types.h>

/* A UNIX stream socket at `path`, which replaces one that nobody listens to any more. uid, gid: its
 * owner and group, -1: as they come. Returns it, non-blocking; -EADDRINUSE somebody listens there,
 * -EEXIST something else lies there, -ENAMETOOLONG, other errors of the system. */
int host_listen_unix(const char *path, mode_t mode, uid_t uid, gid_t gid);

/* A TCP socket at "ADDRESS:PORT", "[ADDRESS]:PORT" or ":PORT" (127.0.0.1). ADDRESS is in digits. */
int host_listen_tcp(const char *where);
/* The port that such a socket has got. */
unsigned host_port_of(int fd);

#endif
