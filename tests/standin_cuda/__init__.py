"""A GPU that is not there: torch's own CUDA build runs on it, on any Linux machine.

A small shared object, preloaded in front of torch's CUDA libraries, answers for the CUDA runtime, cuBLAS, cuDNN and
NCCL; beside it lie an almost empty libcuda.so.1 and the stand-in for NVML, so that the suite itself finds GPUs. Memory
is the host's, copies are real, events carry the host's time, kernels are counted and not run. Above that all is torch's
real code: the caching allocator, streams, events, autocast, GradScaler, the cap on memory, DDP's reducer.

Without arithmetic, sizes and counts are those of CUDA's operations. With it (`arithmetic/`), each CUDA operation is
computed by its CPU kernel on the same bytes, and losses are the CPU's.

NCCL's collectives are carried out by a thread of each rank, over memory that the ranks share. As on a GPU a call only
queues, the next wait for the device is where the host waits for a rank that is gone, and only an abort ends that.

What it cannot show: speed; cuDNN's workspaces and plans; NCCL's own memory; what kernels do wrong.
"""
