/* host_http.c - GET /metrics; the one door to libmicrohttpd. The server has one thread, which the
 * port belongs to. */
#include "tools/host_metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/host_log.h"

#ifdef HAVE_MICROHTTPD
#include <microhttpd.h>

enum { CONNECTIONS_MAX = 16, TIMEOUT_S = 10 };

struct host_http {
  struct host *host;
  struct sr_port *port;
  struct MHD_Daemon *daemon;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, char *text,
                              size_t bytes, bool ours) {
  struct MHD_Response *r = MHD_create_response_from_buffer(
      bytes, text, ours ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
  if (!r) {
    if (!ours) free(text);
    return MHD_NO;
  }
  MHD_add_response_header(r, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  enum MHD_Result result = MHD_queue_response(connection, status, r);
  MHD_destroy_response(r);
  return result;
}

static enum MHD_Result complain(struct MHD_Connection *connection, unsigned status,
                                const char *text) {
  return answer(connection, status, (char *)(uintptr_t)text, strlen(text), true);
}

static enum MHD_Result serve(void *arg, struct MHD_Connection *connection, const char *url,
                             const char *method, const char *version, const char *upload,
                             size_t *upload_bytes, void **state) {
  struct host_http *http = arg;
  char *text;
  size_t bytes;
  (void)version, (void)upload, (void)state;
  if (*upload_bytes) return MHD_NO; /* nobody has anything to tell us */
  if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
    return complain(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET alone is served\n");
  if (strcmp(url, "/metrics") != 0)
    return complain(connection, MHD_HTTP_NOT_FOUND, "there is /metrics\n");
  int r = host_metrics_text(http->host, http->port, &text, &bytes);
  if (r == 0) return answer(connection, MHD_HTTP_OK, text, bytes, false);
  host_log_error("metrics", "metrics", r);
  return complain(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "the figures cannot be had\n");
}

int host_http_start(struct host_http **out, struct host *h, int listen_fd) {
  struct host_http *http = calloc(1, sizeof(*http));
  if (!http) return -ENOMEM;
  http->host = h;
  int r = sr_port_open(h->store, NULL, &http->port);
  if (r == 0) {
    /* Woken by a pipe (ITC) and not by shutdown() of the socket, which a successor may have, too.
     */
    http->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0,
                                    NULL, NULL, serve, http, MHD_OPTION_LISTEN_SOCKET, listen_fd,
                                    MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                    MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_END);
    if (!http->daemon) r = -EIO;
  }
  if (r < 0) {
    sr_port_close(http->port);
    free(http);
    return r;
  }
  *out = http;
  return 0;
}

void host_http_stop(struct host_http *http) {
  if (!http) return;
  MHD_stop_daemon(http->daemon);
  sr_port_close(http->port);
  free(http);
}
#else
int host_http_start(struct host_http **out, struct host *h, int listen_fd) {
  (void)out, (void)h;
  close(listen_fd);
  return -ENOSYS;
}
void host_http_stop(struct host_http *http) { (void)http; }
#endif
