"""How much memory will a trial take? Predicted from its settings alone, without a GPU.

`prediction` traces two steps on tensors that have sizes and no data; `footprint` adds up their lives, and on CUDA
`caching_allocator` simulates what torch would reserve. `ddp`, `cuda_workspaces` and `onednn` add what a trace cannot
show.
"""
