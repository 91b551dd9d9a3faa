/* flush_order_child.c - one put and one flush on a fresh store with the pool engine, between two
 * marks on standard error: what test_flush_order.sh traces. argv[1]: where; argv[2], if there is
 * one: roots are written and flushed. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/shardring.h"

static void mark(const char *text) {
  if (write(2, text, strlen(text)) < 0) exit(3);
}

int main(int argc, char **argv) {
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p;
  char *data = aligned_alloc(4096, 8192);
  if (argc < 2 || !data) return 2;
  o.flush_method = argc > 2 ? SR_FLUSH_AFTER : SR_FLUSH_FUA;
  memset(data, 'd', 8192);
  f.size_bytes = 16 << 20;
  f.shards = 1;
  o.engine = "pool";
  o.no_background = true;
  if (sr_format(argv[1], &f) || sr_store_open(argv[1], &o, &s) || sr_port_open(s, NULL, &p))
    return 1;
  mark("MARK-PUT\n");
  if (sr_put(p, (struct sr_id){1, 2}, data, 8192, 0)) return 1;
  mark("MARK-FLUSH\n");
  if (sr_flush(p)) return 1;
  sr_port_close(p);
  if (sr_store_close(s)) return 1; /* waits for the root */
  mark("MARK-END\n");
  free(data);
  return 0;
}
