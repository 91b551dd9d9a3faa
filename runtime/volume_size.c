/* volume_size.c - changes of a volume that is there: resize, flatten. Under the catalog's lock;
 * what takes long lets go of it and keeps others away by `changing`. */
#include "runtime/volumes_internal.h"

int catalog_resize(struct port *port, const char *name, uint64_t size_bytes, bool force) {
  (void)port, (void)name, (void)size_bytes, (void)force;
  return -ENOSYS;
}

int catalog_flatten(struct port *port, const char *name) {
  (void)port, (void)name;
  return -ENOSYS;
}
