"""How much memory will a trial take? Predicted from its settings, without a GPU.

`prediction` asks `trace` to run two training steps on fake tensors, which have sizes and no data. `known_operations`
runs no operation on them a second time. What a trace on a CPU does not show is added: `ddp` simulates the gradient
buckets of DistributedDataParallel, `cuda_workspaces` and `onednn` the scratch memory of operations. `footprint` holds
the traced allocations and releases; on CUDA it replays them through `caching_allocator`, a simulation of torch's
allocator.
"""
