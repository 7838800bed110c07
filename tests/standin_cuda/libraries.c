/* What has to answer truly of cuBLAS and of cuDNN's older interface: handles, descriptors, which algorithm to take and
   that it needs no workspace. All else only returns success (build.py writes it). */
#include <stdlib.h>
#include <string.h>
#include "runtime.h"

static char handle[4096];

int cublasCreate_v2(void **made) { *made = calloc(1, 64); return 0; } /* each its own: torch keeps a workspace for each */
int cublasLtCreate(void **made) { *made = handle; return 0; }
int cublasGetMathMode(void *h, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *h, int *mode) { *mode = 0; return 0; }
int cublasSetMathMode(void *h, int mode) { standin_counted.tf32_products += mode == 3; return 0; } /* CUBLAS_TF32_TENSOR_OP_MATH */
int cublasLtMatmulDescCreate(void **made, int compute, int scale) {
    standin_counted.tf32_products += compute == 77; /* CUBLAS_COMPUTE_32F_FAST_TF32 */
    *made = calloc(1, 256);
    return 0;
}
int cublasLtMatrixLayoutCreate(void **made, int type, unsigned long rows, unsigned long columns, long leading) { *made = calloc(1, 256); return 0; }
int cublasLtMatmulPreferenceCreate(void **made) { *made = calloc(1, 256); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *preference, int asked, void *results, int *found) {
    memset(results, 0, 128); /* one algorithm without workspace */
    *found = 1;
    return 0;
}
size_t cublasLtGetVersion(void) { return 130000; }

size_t cudnnGetVersion(void) { return 91200; }
size_t cudnnGetCudartVersion(void) { return 13000; }
int cudnnCreate(void **made) { *made = handle; return 0; }
#define DESCRIPTOR(name) int name(void **made) { *made = calloc(1, 1024); return 0; }
DESCRIPTOR(cudnnCreateTensorDescriptor)
DESCRIPTOR(cudnnCreateFilterDescriptor)
DESCRIPTOR(cudnnCreateConvolutionDescriptor)
int cudnnSetConvolutionMathType(int *convolution, int mode) { *convolution = mode; return 0; }
#define CONVOLUTION(name) \
    int name(void *h, void *a, void *b, void *c, void *d, void *e, int *convolution) { \
        standin_counted.library_calls++; \
        standin_counted.tf32_convolutions += *convolution == 0; /* CUDNN_DEFAULT_MATH; 3 is CUDNN_FMA_MATH */ \
        return 0; \
    }
CONVOLUTION(cudnnConvolutionForward)
CONVOLUTION(cudnnConvolutionBackwardData)
CONVOLUTION(cudnnConvolutionBackwardFilter)
DESCRIPTOR(cudnnCreatePoolingDescriptor)
DESCRIPTOR(cudnnCreateActivationDescriptor)
DESCRIPTOR(cudnnCreateDropoutDescriptor)
typedef struct { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; } performance;
#define ALGORITHM(name) \
    int name(void *h, void *a, void *b, int *convolution, void *d, int asked, int *found, performance *results) { \
        memset(results, 0, sizeof *results * asked); \
        results[0].math = *convolution; \
        results[0].algorithm = *found = 1; \
        return 0; \
    }
ALGORITHM(cudnnGetConvolutionForwardAlgorithm_v7)
ALGORITHM(cudnnGetConvolutionBackwardDataAlgorithm_v7)
ALGORITHM(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
#define WORKSPACE(name) int name(void *h, void *a, void *b, void *c, void *d, int algorithm, size_t *bytes) { *bytes = 0; return 0; }
WORKSPACE(cudnnGetConvolutionForwardWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardDataWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardFilterWorkspaceSize)
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *h, int m, int o, void *a, void *b, void *c, void *d, void *e, size_t *bytes) { *bytes = 0; return 0; }
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *h, int m, int o, void *a, void *b, void *c, void *d, void *e, void *f, void *g, size_t *bytes) { *bytes = 0; return 0; }
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *h, int m, int o, void *a, void *x, size_t *bytes) { *bytes = 0; return 0; }
const char *cudnnGetErrorString(int code) { return "the stand-in's error"; }
