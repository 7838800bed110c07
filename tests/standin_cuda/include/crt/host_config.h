/* The wheels lack the compiler's own headers: what cuda_runtime_api.h takes from them, for a plain C compiler. */
#include "host_defines.h"
