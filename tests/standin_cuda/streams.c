/* Streams and events. Kernels and copies are done when the call returns, so that only what NCCL queued is ever waited
   for: each has a number (nccl.c), and a stream or an event is behind the highest that it has to wait for. Copies, and
   with arithmetic all operations, on such a stream wait inside the call; CUDA would queue them too. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <time.h>
#include "runtime.h"

enum { MOST_DEVICES = 16 };
typedef struct { unsigned long behind; } stream;
typedef struct { unsigned long behind; double ms; } event;

/* The default stream is each device's own, and has no address. */
static stream *known(cudaStream_t given) {
    static stream defaults[MOST_DEVICES];
    int device;
    if ((uintptr_t)given > 2) return (stream *)given;
    cudaGetDevice(&device);
    return &defaults[device];
}
static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}
static void put_behind(stream *later, unsigned long number) {
    if (later->behind < number) later->behind = number;
}

void standin_put_behind(void *given, unsigned long number) { put_behind(known(given), number); }
void standin_reach(void *given) { standin_wait_for(known(given)->behind); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *made, unsigned flags, int priority) {
    *made = calloc(1, sizeof(stream));
    return 0;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags) { return cudaStreamCreateWithPriority(made, flags, 0); }
cudaError_t cudaStreamCreate(cudaStream_t *made) { return cudaStreamCreateWithPriority(made, 0, 0); }
cudaError_t cudaStreamIsCapturing(cudaStream_t given, enum cudaStreamCaptureStatus *status) { *status = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t given, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
    *status = 0;
    if (id) *id = 0;
    return 0;
}
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t given, enum cudaStreamCaptureStatus *status, unsigned long long *id) {
    return cudaStreamGetCaptureInfo(given, status, id, NULL, NULL, NULL, NULL);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags) { *made = calloc(1, sizeof(event)); return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *made) { return cudaEventCreateWithFlags(made, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t given) { free(given); return 0; }
cudaError_t cudaEventRecord(cudaEvent_t given, cudaStream_t on) {
    standin_counted.events++;
    *(event *)given = (event){known(on)->behind, now_ms()};
    return 0;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t given, cudaStream_t on, unsigned flags) { return cudaEventRecord(given, on); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = (float)(((event *)to)->ms - ((event *)from)->ms);
    return cudaEventQuery(to) ? cudaErrorNotReady : cudaEventQuery(from);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t later, cudaEvent_t given, unsigned flags) {
    put_behind(known(later), ((event *)given)->behind);
    return 0;
}

cudaError_t cudaEventQuery(cudaEvent_t given) { return standin_is_done(((event *)given)->behind) ? 0 : cudaErrorNotReady; }
cudaError_t cudaStreamQuery(cudaStream_t given) { return standin_is_done(known(given)->behind) ? 0 : cudaErrorNotReady; }
cudaError_t cudaStreamSynchronize(cudaStream_t given) {
    standin_counted.waits++;
    standin_reach(given);
    return 0;
}
cudaError_t cudaEventSynchronize(cudaEvent_t given) {
    standin_counted.waits++;
    standin_wait_for(((event *)given)->behind);
    return 0;
}
cudaError_t cudaDeviceSynchronize(void) {
    standin_counted.waits++;
    standin_wait_for_all();
    return 0;
}
