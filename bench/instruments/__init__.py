"""What do the probes measure with?

`clock` times windows on the device. `sampler` reads gauges of a device from a thread. `operations` and `collectives`
count what a process asks of torch, `memory_traffic` the bytes of each operation, `compilations` torch.compile's graphs.
`turns` lets several launches on a machine train alternately. `storage_tracker` follows the memory of tensors from
allocation to release. `peaks` has what devices compute at most by their makers.
"""
