/* Stands in for the CUDA runtime: torch's CUDA build initialises, allocates, copies, records events and launches
   kernels, of which none runs. STANDIN_CUDA says how many devices there are, STANDIN_CUDA_BYTES how large each is,
   STANDIN_CUDA_CAPABILITY ("9.0") what it can, STANDIN_CUDA_DRIVER (13000) which CUDA its driver knows.
   STANDIN_CUDA_INTEGRATED=1 puts them inside the processor, whose memory they share, as a Jetson's.
   STANDIN_CUDA_SHARED names a file over which processes share the devices' memory. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "runtime.h"
#include "shared.h"

enum { MOST_DEVICES = 16, RUNTIME = 13000 };
static __thread int current;
static __thread cudaError_t last;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
standin_counts standin_counted;

static cudaError_t fail(cudaError_t code) { return last = code; }

/* ---- devices ---- */

static int number(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }

/* Visible devices by their physical numbers, as CUDA_VISIBLE_DEVICES lets them through. */
static int read_visible(int *physical) {
    int present = number("STANDIN_CUDA", 0), count = 0;
    char text[4096];
    const char *given = getenv("CUDA_VISIBLE_DEVICES");
    if (!given) {
        for (; count < present && count < MOST_DEVICES; count++) physical[count] = count;
        return count;
    }
    snprintf(text, sizeof text, "%s", given);
    for (char *rest = text, *name; (name = strsep(&rest, ",")) && count < MOST_DEVICES;) {
        name += strspn(name, " ");
        int uuid = !strncasecmp(name, "GPU-", 4), device = uuid ? standin_by_uuid(name) : atoi(name);
        if ((!uuid && (*name < '0' || *name > '9')) || device < 0 || device >= present) break;
        physical[count++] = device;
    }
    return count;
}

/* The same, read once in a process, as by CUDA: Accelerate empties the environment for a moment (clear_environment),
   while NCCL's watchdog sets its device in another thread. */
static int visible(int *physical) {
    static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;
    static int kept[MOST_DEVICES], count, reader;
    pthread_mutex_lock(&reading);
    if (reader != getpid()) count = read_visible(kept), reader = getpid();
    memcpy(physical, kept, sizeof kept);
    pthread_mutex_unlock(&reading);
    return count;
}

static int physical(int device) {
    int found[MOST_DEVICES], count = visible(found);
    return device < count ? found[device] : -1;
}

cudaError_t cudaDriverGetVersion(int *version) { *version = number("STANDIN_CUDA_DRIVER", RUNTIME); return 0; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = RUNTIME; return 0; }

cudaError_t cudaGetDeviceCount(int *count) {
    int found[MOST_DEVICES], driver;
    *count = visible(found);
    cudaDriverGetVersion(&driver);
    if (!number("STANDIN_CUDA", 0) || !*count) return fail(cudaErrorNoDevice);
    if (driver / 1000 < RUNTIME / 1000) return fail(cudaErrorInsufficientDriver);
    return 0;
}
cudaError_t cudaGetDevice(int *device) { *device = current; return 0; }
cudaError_t cudaSetDevice(int device) {
    if (physical(device) < 0) return fail(cudaErrorInvalidDevice);
    current = device;
    return 0;
}

static int capability(int part) {
    int major = 9, minor = 0;
    const char *given = getenv("STANDIN_CUDA_CAPABILITY");
    if (given) sscanf(given, "%d.%d", &major, &minor);
    return part ? minor : major;
}

#undef cudaGetDeviceProperties
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    snprintf(found->name, sizeof found->name, "%s", STANDIN_NAME);
    found->uuid.bytes[0] = 0x5d, found->uuid.bytes[15] = (char)physical(device);
    found->totalGlobalMem = standin_total_bytes();
    found->major = capability(0), found->minor = capability(1);
    found->pciBusID = physical(device) + 1;
    found->multiProcessorCount = 132, found->warpSize = 32;
    found->maxThreadsPerBlock = 1024, found->maxThreadsPerMultiProcessor = 2048, found->maxBlocksPerMultiProcessor = 32;
    for (int i = 0; i < 3; i++) found->maxGridSize[i] = i ? 65535 : 2147483647, found->maxThreadsDim[i] = i < 2 ? 1024 : 64;
    found->sharedMemPerBlock = 48 << 10, found->sharedMemPerMultiprocessor = 228 << 10;
    found->sharedMemPerBlockOptin = 227 << 10, found->regsPerBlock = found->regsPerMultiprocessor = 65536;
    found->l2CacheSize = 50 << 20, found->integrated = number("STANDIN_CUDA_INTEGRATED", 0);
    return 0;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor   ? capability(0)
             : attribute == cudaDevAttrComputeCapabilityMinor ? capability(1)
             : attribute == cudaDevAttrMultiProcessorCount    ? 132
                                                              : 1024;
    return 0;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
    snprintf(text, size, "0000:%02x:00.0", physical(device) + 1);
    return 0;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int one, int other) { *can = 0; return 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0, *greatest = -5; return 0; }

/* ---- memory: the host's, from which a device's size is taken ---- */

typedef struct { char *at; size_t bytes; int device; } block; /* device -1: pinned memory of the host */
static block *blocks;
static int block_count, block_room;
static unsigned long long used[MOST_DEVICES]; /* of this process, where no file is shared */

/* This process's part of a device; the context is taken with it. */
static unsigned long long *held(int device) {
    static slot *own[MOST_DEVICES];
    slot *slots = standin_slots();
    if (!slots) return used[device] ? &used[device] : (used[device] = CONTEXT_BYTES, &used[device]);
    if (own[device] && own[device]->pid == getpid()) return &own[device]->used;
    for (int i = 0; i < SLOTS; i++) {
        int before = slots[i].pid;
        if (standin_lives(before) || !__sync_bool_compare_and_swap(&slots[i].pid, before, getpid())) continue;
        slots[i].device = device, slots[i].used = CONTEXT_BYTES;
        own[device] = &slots[i];
        return &slots[i].used;
    }
    abort(); /* more processes than any test has */
}
static unsigned long long taken(int device) { return standin_slots() ? standin_used_bytes(device) : used[device]; }

static void *keep(void *at, size_t bytes, int device) {
    if (block_count == block_room) blocks = realloc(blocks, (block_room += 4096) * sizeof *blocks);
    blocks[block_count++] = (block){at, bytes, device};
    return at;
}
static block *find(const void *at) {
    for (int i = block_count - 1; i >= 0; i--)
        if ((char *)at >= blocks[i].at && (char *)at < blocks[i].at + blocks[i].bytes) return &blocks[i];
    return NULL;
}
static void *mapped(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

cudaError_t cudaMalloc(void **at, size_t bytes) {
    int device = physical(current);
    *at = NULL;
    if (device < 0) return fail(cudaErrorNoDevice);
    if (!bytes) return 0;
    pthread_mutex_lock(&lock);
    unsigned long long *mine = held(device);
    int fits = taken(device) + bytes <= standin_total_bytes();
    if (fits && (*at = mapped(bytes))) keep(*at, bytes, device), *mine += bytes;
    pthread_mutex_unlock(&lock);
    standin_counted.allocations++;
    return *at ? 0 : fail(cudaErrorMemoryAllocation);
}
static cudaError_t release(void *at) {
    pthread_mutex_lock(&lock);
    block *found = at ? find(at) : NULL;
    if (found) {
        if (found->device >= 0) *held(found->device) -= found->bytes;
        munmap(found->at, found->bytes);
        *found = blocks[--block_count];
    }
    pthread_mutex_unlock(&lock);
    return !at || found ? 0 : fail(cudaErrorInvalidValue);
}
cudaError_t cudaFree(void *at) {
    standin_wait_for_all(); /* as CUDA does */
    return release(at);
}
cudaError_t cudaFreeHost(void *at) { return release(at); }
cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned flags) {
    pthread_mutex_lock(&lock);
    if ((*at = mapped(bytes ? bytes : 1))) keep(*at, bytes ? bytes : 1, -1);
    pthread_mutex_unlock(&lock);
    return *at ? 0 : fail(cudaErrorMemoryAllocation);
}
cudaError_t cudaMallocHost(void **at, size_t bytes) { return cudaHostAlloc(at, bytes, 0); }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    int device = physical(current);
    if (device < 0) return fail(cudaErrorNoDevice);
    pthread_mutex_lock(&lock);
    held(device);
    *total = standin_total_bytes();
    unsigned long long in_use = taken(device);
    *free = in_use < *total ? *total - in_use : 0;
    pthread_mutex_unlock(&lock);
    return 0;
}
static int kind(const void *at) {
    pthread_mutex_lock(&lock);
    block *found = find(at);
    int answer = !found ? cudaMemoryTypeUnregistered : found->device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    pthread_mutex_unlock(&lock);
    return answer;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *at) {
    memset(found, 0, sizeof *found);
    found->type = kind(at);
    if (found->type != cudaMemoryTypeUnregistered) found->hostPointer = found->devicePointer = (void *)at;
    if (found->type == cudaMemoryTypeDevice) found->hostPointer = NULL, found->device = current;
    return 0;
}

/* ---- copies ---- */

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind direction) {
    standin_counted.copies++, standin_counted.waits++;
    standin_reach(NULL);
    memcpy(to, from, bytes);
    return 0;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind direction, cudaStream_t stream) {
    standin_counted.copies++;
    standin_counted.pageable_copies += kind(to) == cudaMemoryTypeUnregistered || kind(from) == cudaMemoryTypeUnregistered;
    standin_reach(stream);
    memcpy(to, from, bytes);
    return 0;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
    standin_reach(stream);
    memset(at, value, bytes);
    return 0;
}
cudaError_t cudaMemset(void *at, int value, size_t bytes) { return cudaMemsetAsync(at, value, bytes, NULL); }

/* ---- kernels: counted, not run ---- */

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 blocks, void **words, size_t shared, cudaStream_t stream) {
    standin_counted.launches++;
    return 0;
}
int __cudaLaunchKernel(void) { standin_counted.launches++; return 0; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **words) {
    standin_counted.launches++;
    return 0;
}
int __cudaGetKernel(void **kernel, void *function) { *kernel = function; return 0; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024, found->numRegs = 32, found->binaryVersion = found->ptxVersion = 90;
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *kernel, int size, size_t shared) { *count = 2; return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *kernel, int size, size_t shared, unsigned flags) {
    *count = 2;
    return 0;
}

/* ---- errors and the driver's functions ---- */

cudaError_t cudaGetLastError(void) { cudaError_t found = last; last = 0; return found; }
cudaError_t cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        default: return "the stand-in's error";
    }
}
const char *cudaGetErrorName(cudaError_t code) { return code == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaError"; }
static int driver_function(void) { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *function = (void *)driver_function;
    if (result) *result = 0;
    return 0;
}
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    return cudaGetDriverEntryPointByVersion(name, function, 0, flags, result);
}
