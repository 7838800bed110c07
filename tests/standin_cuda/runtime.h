/* What the parts of the stand-in share. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STANDIN_NAME "Stand-in GPU (no hardware)"
#define STANDIN_UUID "GPU-5d000000-0000-0000-0000-%012x"

/* Of this process so far; tests read them by these names (tests/standin_cuda/counts.py has the same order). */
typedef struct {
    long long launches;        /* kernels of torch's own */
    long long library_calls;   /* calls of cuDNN and cuBLAS that compute */
    long long waits;           /* for the device: synchronisations and blocking copies */
    long long copies;          /* between host and device, or within it */
    long long pageable_copies; /* of them, asynchronous from or to memory that is not pinned, for which CUDA may wait */
    long long events;          /* recorded */
    long long allocations;     /* cudaMalloc, which waits too */
    long long tf32_convolutions; /* for which cuDNN may use TF32 */
    long long tf32_products;   /* of matrices, for which cuBLAS may */
} standin_counts;
extern standin_counts standin_counted;

/* The number of the device with this UUID, or -1. */
static inline int standin_by_uuid(const char *uuid) {
    return strlen(uuid) == 40 && !strncasecmp(uuid, STANDIN_UUID, 28) ? (int)strtol(uuid + 28, NULL, 16) : -1;
}

/* What NCCL has queued is numbered, in the order in which it is carried out. */
int standin_is_done(unsigned long number);
void standin_wait_for(unsigned long number);
void standin_wait_for_all(void);
void standin_put_behind(void *stream, unsigned long number); /* what a stream is asked for comes after it */
void standin_reach(void *stream);                            /* wait until a stream is behind nothing */
