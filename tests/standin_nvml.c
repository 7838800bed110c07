/* Stands in for NVIDIA's management library on machines without it. STANDIN_NVML says how it behaves:
   "2", "0", ...: that many GPUs, GPU-known, of which MIG-part is one, GPU-1 and so on, with 3 of their 8 GiB in use;
   "refuses": it cannot be initialised; "mismatch": nor that, since the driver is of another version;
   "jetson": it can, and answers nothing else, as on a Jetson.
   Where STANDIN_CUDA_SHARED names a file, its GPUs are those of the stand-in for CUDA (tests/standin_cuda/): of one name
   and identity, with the memory in use and the processes that are there, and with 100 W from a counter that runs.
   STANDIN_NVML_NAME is what its GPUs are called, if not that they are none. STANDIN_NVML_STATE may name a file, read anew for each answer, with lines such as `power_mw 100000`, or for one GPU
   alone `1.power_mw 50000`; a value of -3 is the error number 3. `pid` may stand in it several times, and while
   `lost 1` does, every GPU has fallen off the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "standin_cuda/runtime.h"
#include "standin_cuda/shared.h"

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15,
       VERSION_MISMATCH = 18 };
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned instances[2]; } process;
enum { MOST_PROCESSES = 64 };

static char gpus[16]; /* a device is a pointer to one of these */

static int is(const char *what) { const char *is = getenv("STANDIN_NVML"); return is && !strcmp(is, what); }
static int answer(void) { return is("jetson") ? NOT_SUPPORTED : OK; }

/* How often the state names this, for this GPU or for all; the last value goes to *value, all of them to pids. */
static unsigned find(void *gpu, const char *name, long long *value, process *pids) {
    const char *path = getenv("STANDIN_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[64], own[64];
    long long number;
    unsigned found = 0;
    snprintf(own, sizeof own, "%d.%s", (int)((char *)gpu - gpus), name);
    while (file && fscanf(file, "%63s %lld", line, &number) == 2)
        if (!strcmp(line, name) || !strcmp(line, own)) {
            if (pids) pids[found].pid = (unsigned)number;
            *value = number, found++;
        }
    if (file) fclose(file);
    return found;
}

/* A GPU's value by the state, or else this one. */
static int ask(void *gpu, const char *name, unsigned long long otherwise, unsigned long long *value) {
    long long number = (long long)otherwise, lost = 0;
    find(gpu, "lost", &lost, NULL);
    find(gpu, name, &number, NULL);
    *value = (unsigned long long)number;
    return lost ? GPU_IS_LOST : answer() ? answer() : number < 0 ? (int)-number : OK;
}

static int ask_short(void *gpu, const char *name, unsigned otherwise, unsigned *value) {
    unsigned long long found;
    int code = ask(gpu, name, otherwise, &found);
    *value = (unsigned)found;
    return code;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return is("refuses") ? DRIVER_NOT_LOADED : is("mismatch") ? VERSION_MISMATCH : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    return code == NOT_SUPPORTED ? "Not Supported" : code == GPU_IS_LOST ? "GPU is lost"
         : "as the stand-in was told";
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = atoi(getenv("STANDIN_NVML")); return answer(); }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "550.54.15", size); return answer(); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    *gpu = gpus + index;
    return answer() ? answer() : index < (unsigned)atoi(getenv("STANDIN_NVML")) ? OK : NOT_FOUND;
}
static int index_of(void *gpu) { return (int)((char *)gpu - gpus); }
int nvmlDeviceGetIndex(void *gpu, unsigned *index) { *index = (unsigned)index_of(gpu); return answer(); }
int nvmlDeviceGetName(void *gpu, char *name, unsigned size) { 
    const char *given = getenv("STANDIN_NVML_NAME");
    snprintf(name, size, "%s", given ? given : STANDIN_NAME);
    return answer();
}
int nvmlDeviceGetUUID(void *gpu, char *uuid, unsigned size) {
    snprintf(uuid, size, STANDIN_UUID, index_of(gpu));
    return answer();
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    int number = standin_by_uuid(uuid) >= 0 ? standin_by_uuid(uuid) : !strcmp(uuid, "GPU-known") || !strcmp(uuid, "MIG-part") ? 0 : !strncmp(uuid, "GPU-", 4) && atoi(uuid + 4) ? atoi(uuid + 4) : -1;
    if (is("jetson")) number = 0;
    *gpu = gpus + number;
    return is("jetson") || (number >= 0 && number < atoi(getenv("STANDIN_NVML"))) ? OK : NOT_FOUND;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory *memory) {
    unsigned mib;
    int live = standin_slots() != NULL;
    unsigned long long used = live ? standin_used_bytes(index_of(gpu)) : 3ull << 30;
    int code = ask_short(gpu, "used_mib", 0, &mib);
    memory->total = live ? standin_total_bytes() : 8ull << 30, memory->used = mib ? (unsigned long long)mib << 20 : used;
    memory->free = memory->total - memory->used;
    return code;
}
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
    const char *given = getenv("STANDIN_CUDA_CAPABILITY");
    *major = 9, *minor = 0;
    if (given) sscanf(given, "%d.%d", major, minor);
    return answer();
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *mj) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ask(gpu, "energy_mj", standin_slots() ? now.tv_sec * 100000ull + now.tv_nsec / 10000 : 7000, mj);
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *mw) { return ask_short(gpu, "power_mw", 100000, mw); }
int nvmlDeviceGetUtilizationRates(void *gpu, utilization *rates) { return ask_short(gpu, "busy", 75, &rates->gpu); }
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius) {
    return sensor ? NOT_SUPPORTED : ask_short(gpu, "celsius", 60, celsius);
}
int nvmlDeviceGetClockInfo(void *gpu, int clock, unsigned *mhz) {
    return clock != 1 ? NOT_SUPPORTED : ask_short(gpu, "mhz", 1500, mhz); /* 1: multiprocessors */
}
int nvmlDeviceGetApplicationsClock(void *gpu, int clock, unsigned *mhz) {
    return clock != 1 ? NOT_SUPPORTED : ask_short(gpu, "application_mhz", 1410, mhz);
}
int nvmlDeviceGetMaxClockInfo(void *gpu, int clock, unsigned *mhz) {
    return clock != 1 ? NOT_SUPPORTED : ask_short(gpu, "max_mhz", 1980, mhz);
}
int nvmlDeviceGetEnforcedPowerLimit(void *gpu, unsigned *mw) { return ask_short(gpu, "limit_mw", 400000, mw); }
int nvmlDeviceGetCurrentClocksEventReasons(void *gpu, unsigned long long *mask) { return ask(gpu, "reasons", 1, mask); }
/* The processes of a GPU: those that the state names, then those that the stand-in for CUDA knows of. */
static int running(void *gpu, process *found, unsigned *count) {
    unsigned long long unused;
    long long last;
    slot *slots = standin_slots();
    int code = ask(gpu, "processes", 0, &unused);
    *count = find(gpu, "pid", &last, found);
    for (int i = 0; slots && i < SLOTS && *count < MOST_PROCESSES; i++)
        if (slots[i].device == index_of(gpu) && standin_lives(slots[i].pid))
            found[*count].pid = slots[i].pid, found[*count].used = slots[i].used, ++*count;
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, process *processes) {
    process found[MOST_PROCESSES] = {{0}};
    unsigned room = *count;
    int code = running(gpu, found, count);
    if (code) return code;
    if (*count > room) return INSUFFICIENT_SIZE;
    memcpy(processes, found, *count * sizeof *found);
    return OK;
}

/* What torch itself asks, for its words about running out of memory; the first version of a process has no instances. */
typedef struct { unsigned pid; unsigned long long used; } process_v1;
int nvmlDeviceGetComputeRunningProcesses(void *gpu, unsigned *count, process_v1 *processes) {
    process found[MOST_PROCESSES] = {{0}};
    unsigned room = *count;
    int code = running(gpu, found, count);
    if (code) return code;
    if (*count > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) processes[i] = (process_v1){found[i].pid, found[i].used};
    return OK;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **gpu) { /* 0000:01:00.0 is the first */
    unsigned domain, bus;
    int known = sscanf(id, "%x:%x", &domain, &bus) == 2;
    return known ? nvmlDeviceGetHandleByIndex_v2(bus - 1, gpu) : NOT_FOUND;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *gpu, unsigned link, unsigned *type) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *gpu, unsigned link, void *pci) { return NOT_SUPPORTED; }
int nvmlDeviceGetGpuFabricInfoV(void *gpu, void *info) { return NOT_SUPPORTED; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return answer(); }
