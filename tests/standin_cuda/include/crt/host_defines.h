#ifndef STANDIN_HOST_DEFINES
#define STANDIN_HOST_DEFINES
#define __host__
#define __device__
#define __global__
#define __shared__
#define __constant__
#define __managed__
#define __forceinline__ inline
#define __noinline__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define CUDARTAPI
#define CUDAAPI
#define CUDARTAPI_CDECL
#define __specialization_static static
#define __no_return__
#define __location__(a)
#define __annotate__(a)
#define __inline_hint__
#define CUDA_CB
#define __CUDA_ARCH_HAS_FEATURE__(x) 0
#endif
