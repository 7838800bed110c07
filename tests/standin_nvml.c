/* Stands in for NVIDIA's management library on machines without it. STANDIN_NVML says how it behaves:
   "2", "0", ...: that many GPUs, the first of which is GPU-known and has 3 of its 8 GiB in use;
   "refuses": it cannot be initialised; "jetson": it can, and answers nothing else, as on a Jetson. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
typedef struct { unsigned long long total, free, used; } memory;

static int is(const char *what) { const char *is = getenv("STANDIN_NVML"); return is && !strcmp(is, what); }
static int answer(void) { return is("jetson") ? NOT_SUPPORTED : OK; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return is("refuses") ? DRIVER_NOT_LOADED : OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "as the stand-in was told"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = atoi(getenv("STANDIN_NVML")); return answer(); }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "550.54.15", size); return answer(); }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = &"GPU-known";
    return answer() ? answer() : strcmp(uuid, "GPU-known") ? NOT_FOUND : OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &"GPU-known";
    return answer() ? answer() : index >= (unsigned)atoi(getenv("STANDIN_NVML")) ? NOT_FOUND : OK;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *memory) {
    (void)device;
    memory->total = 8ull << 30, memory->used = 3ull << 30, memory->free = 5ull << 30;
    return answer();
}
