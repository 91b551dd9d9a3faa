/* A virtual disk: written to, kept as a snapshot, cloned; and what each of the three reads. */
#include <errno.h>
#include <shardring.h>
#include <stdio.h>
#include <string.h>

static int64_t print_block(struct sr_port *port, const char *name, const char *end) {
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *disk;
  char text[512]; /* a logical block */

  read_only.read_only = true;
  int64_t rc = sr_volume_open(port, name, &read_only, &disk);
  if (rc < 0) return rc;
  rc = sr_block_read(port, disk, text, 1 << 20, sizeof(text));
  if (rc >= 0) printf("%s: %s%s", name, text, end);
  sr_block_close(port, disk);
  return rc;
}

static int64_t write_block(struct sr_port *port, const char *name, const char *text) {
  struct sr_block *disk;
  char block[512] = "";

  snprintf(block, sizeof(block), "%s", text);
  int64_t rc = sr_volume_open(port, name, NULL, &disk);
  if (rc < 0) return rc;
  rc = sr_block_write(port, disk, block, 1 << 20, sizeof(block), 0);
  if (rc >= 0) rc = sr_block_flush(port, disk); /* from here on the write survives a power cut */
  sr_block_close(port, disk);
  return rc;
}

static int64_t run(struct sr_port *port) {
  struct sr_volume_options size = SR_VOLUME_OPTIONS_INIT;
  int64_t rc;

  size.size_bytes = (uint64_t)10 << 30; /* thin: it takes what is written */
  rc = sr_volume_create(port, "disk", &size);
  if (rc == -EEXIST) rc = 0; /* an earlier run has left them all */
  if (rc == 0) rc = write_block(port, "disk", "as it was");
  if (rc >= 0) rc = sr_volume_snapshot(port, "disk", "monday");
  if (rc == -EEXIST) rc = 0;
  if (rc >= 0) rc = sr_volume_clone(port, "monday", "twin", NULL); /* nothing is copied */
  if (rc == -EEXIST) rc = 0;
  if (rc >= 0) rc = write_block(port, "disk", "goes on");
  if (rc >= 0) rc = write_block(port, "twin", "its own");
  if (rc >= 0) rc = sr_flush(port); /* all that is in the store */
  if (rc >= 0) rc = print_block(port, "monday", ", ");
  if (rc >= 0) rc = print_block(port, "disk", ", ");
  if (rc >= 0) rc = print_block(port, "twin", "\n");
  return rc;
}

int main(int argc, char **argv) {
  const char *where = argc > 1 ? argv[1] : "./volume-store";
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  struct sr_store *store = NULL;
  struct sr_port *port = NULL;

  format.size_bytes = 64 << 20, format.shards = 2;
  int64_t rc = sr_format(where, &format);
  if (rc == 0 || rc == -EEXIST) rc = sr_store_open(where, NULL, &store);
  if (rc == 0) rc = sr_port_open(store, NULL, &port);
  if (rc == 0) rc = run(port);
  if (rc < 0) fprintf(stderr, "%s: %s\n", where, strerror((int)-rc));
  sr_port_close(port);
  return (sr_store_close(store) < 0) | (rc < 0);
}
