/* host_metrics.h - figures of disks, cores and store in Prometheus' text format, and the HTTP
 * server that tells them. */
#ifndef TOOLS_HOST_METRICS_H
#define TOOLS_HOST_METRICS_H

#include "tools/host.h"

/* The whole page; the caller frees *text. */
int host_metrics_text(struct host *h, struct sr_port *port, char **text, size_t *bytes);

/* Serves GET /metrics on a listening socket (taken over), with a thread and a port of its own.
 * -ENOSYS: not in this build. */
struct host_http;
int host_http_start(struct host_http **http, struct host *h, int listen_fd);
void host_http_stop(struct host_http *http);

#endif
