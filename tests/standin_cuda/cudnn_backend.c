/* cuDNN's newer interface, through which torch runs convolutions, bf16 ones on no other path: a graph of operations goes
   in, a plan comes out and is executed. Here a graph has one engine, without knobs or notes, whose plan needs no
   workspace. What is set in a descriptor is not asked for again, so nothing keeps it; an attribute that is asked for and
   not known here is refused. */
#include <cudnn_graph.h>
#include <stdlib.h>
#include "runtime.h"

typedef struct {
    cudnnBackendDescriptorType_t type;
    int finalized;
} Descriptor;

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *made) {
    Descriptor *descriptor = calloc(1, sizeof *descriptor);
    if (descriptor == NULL) return CUDNN_STATUS_ALLOC_FAILED;
    descriptor->type = type;
    *made = descriptor;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    free(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    return ((Descriptor *)descriptor)->finalized ? CUDNN_STATUS_NOT_INITIALIZED : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    ((Descriptor *)descriptor)->finalized = 1;
    return CUDNN_STATUS_SUCCESS;
}

/* Descriptors that are asked for exist: whoever asks has made them, for cuDNN to fill in. */
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t wanted, int64_t *count, void *values) {
    int64_t there;
    switch (name) {
        case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        case CUDNN_ATTR_ENGINECFG_ENGINE:
        case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        case CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT:
        case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: there = 1; break;
        case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE: there = 0; break;
        default: return CUDNN_STATUS_NOT_SUPPORTED;
    }
    if (count != NULL) *count = there;
    if (type == CUDNN_TYPE_INT64 && wanted > 0 && there == 1)
        *(int64_t *)values = name == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    if (!((Descriptor *)plan)->finalized || !((Descriptor *)pack)->finalized) return CUDNN_STATUS_NOT_INITIALIZED;
    standin_counted.library_calls++;
    return CUDNN_STATUS_SUCCESS;
}
