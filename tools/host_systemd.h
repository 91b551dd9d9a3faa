/* host_systemd.h - what a daemon and systemd tell each other, by its documented protocols and
 * without its library: descriptors that are handed over, and how the start went. One thread. */
#ifndef TOOLS_HOST_SYSTEMD_H
#define TOOLS_HOST_SYSTEMD_H

#include <stdbool.h>

#define HOST_INHERITED_MAX 256

/* Descriptors that were handed over with names ($LISTEN_FDS, $LISTEN_FDNAMES). */
struct host_inherited {
  int count;
  struct {
    int fd; /* -1: taken */
    char name[256];
  } all[HOST_INHERITED_MAX];
};
/* Reads the environment and takes it away. Returns how many there are. */
int host_inherited_read(struct host_inherited *in);
/* The descriptor of that name, which is the caller's from now on; -1: there is none (any more). */
int host_inherited_take(struct host_inherited *in, const char *name);
/* Gives back what was taken under that name: the next one can take it. */
void host_inherited_put(struct host_inherited *in, const char *name, int fd);
/* One more, from elsewhere. -ENOSPC: it stays the caller's. */
int host_inherited_add(struct host_inherited *in, const char *name, int fd);
/* Closes what nobody has taken. */
void host_inherited_close(struct host_inherited *in);

/* Remembers $NOTIFY_SOCKET and takes it away; before anything is said. */
void host_notify_init(void);
/* "READY=1", "STOPPING=1", "STATUS=..."; does nothing where nobody listens. */
void host_notify(const char *state);

#endif
