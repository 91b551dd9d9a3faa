/* ctl_host.h - what the parts of `shard-ctl host` share. One thread. */
#ifndef TOOLS_CTL_HOST_H
#define TOOLS_CTL_HOST_H

#include "tools/ctl.h"

struct host_reply {
  const char *command; /* the word of the command line */
  bool json;
  const struct js *root;
};
/* Writes what the daemon answered to stdout. CTL_OK or CTL_FAILED. */
int ctl_host_print(const struct host_reply *reply);
/* How the daemon that has answered "ping" is replaced, likewise. */
int ctl_host_explain_upgrade(const struct host_reply *reply);

#endif
