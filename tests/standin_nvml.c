/* Stands in for NVIDIA's management library on machines without it. STANDIN_NVML says how it behaves:
   "2", "0", ...: that many GPUs, GPU-known, GPU-1 and so on, with 3 of their 8 GiB in use;
   "refuses": it cannot be initialised; "mismatch": nor that, since the driver is of another version;
   "jetson": it can, and answers nothing else, as on a Jetson.
   STANDIN_NVML_STATE may name a file, read anew for each answer, with lines such as `power_mw 100000`, or for one GPU
   alone `1.power_mw 50000`; a value of -3 is the error number 3. `pid` may stand in it several times, and while
   `lost 1` does, every GPU has fallen off the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15,
       VERSION_MISMATCH = 18 };
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned instances[2]; } process;

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
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    int number = !strcmp(uuid, "GPU-known") ? 0 : !strncmp(uuid, "GPU-", 4) && atoi(uuid + 4) ? atoi(uuid + 4) : -1;
    if (is("jetson")) number = 0;
    *gpu = gpus + number;
    return is("jetson") || (number >= 0 && number < atoi(getenv("STANDIN_NVML"))) ? OK : NOT_FOUND;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory *memory) {
    unsigned mib;
    int code = ask_short(gpu, "used_mib", 3 << 10, &mib);
    memory->total = 8ull << 30, memory->used = (unsigned long long)mib << 20;
    memory->free = memory->total - memory->used;
    return code;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *mj) { return ask(gpu, "energy_mj", 7000, mj); }
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *mw) { return ask_short(gpu, "power_mw", 100000, mw); }
int nvmlDeviceGetUtilizationRates(void *gpu, utilization *rates) { return ask_short(gpu, "busy", 75, &rates->gpu); }
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius) {
    return sensor ? NOT_SUPPORTED : ask_short(gpu, "celsius", 60, celsius);
}
int nvmlDeviceGetClockInfo(void *gpu, int clock, unsigned *mhz) {
    return clock != 1 ? NOT_SUPPORTED : ask_short(gpu, "mhz", 1500, mhz); /* 1: multiprocessors */
}
int nvmlDeviceGetCurrentClocksEventReasons(void *gpu, unsigned long long *mask) { return ask(gpu, "reasons", 1, mask); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, process *processes) {
    unsigned long long unused;
    long long last;
    process found[16] = {{0}};
    unsigned room = *count;
    int code = ask(gpu, "processes", 0, &unused);
    if (code) return code;
    *count = find(gpu, "pid", &last, found);
    if (*count > room) return INSUFFICIENT_SIZE;
    memcpy(processes, found, *count * sizeof *found);
    return OK;
}
