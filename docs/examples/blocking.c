/* A store, a blob in it, and the blob back: the shortest whole program. */
#include <errno.h>
#include <shardring.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  const char *where = argc > 1 ? argv[1] : "./hello-store";
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  struct sr_store *store = NULL;
  struct sr_port *port = NULL;
  struct sr_id id = {0, 42};
  char text[32] = "";

  format.size_bytes = 64 << 20, format.shards = 2;
  int64_t rc = sr_format(where, &format);
  if (rc == 0 || rc == -EEXIST) rc = sr_store_open(where, NULL, &store);
  if (rc == 0) rc = sr_port_open(store, NULL, &port);
  if (rc == 0) rc = sr_put(port, id, "hello, ring", 11, 0);
  if (rc == 0) rc = sr_flush(port); /* from here on the blob survives a power cut */
  if (rc == 0) rc = sr_get(port, id, text, 0, sizeof(text) - 1);
  if (rc >= 0) printf("%d bytes: %s\n", (int)rc, text);
  if (rc < 0) fprintf(stderr, "%s: %s\n", where, strerror((int)-rc));
  sr_port_close(port);
  return (sr_store_close(store) < 0) | (rc < 0);
}
