#include "api/vhost/blk.h"
