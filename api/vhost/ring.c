#include "api/vhost/ring.h"
