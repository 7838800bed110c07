"""Which machine is this, how is torch set up on it, and what limits memory?

What is here: `environment` (CPU, versions, commit), `repository` (git), `gpus` (without importing torch), `devices`
(what a trial runs on), `nvml` (NVIDIA's library), `tegra` (a Jetson's files), `rapl` (a CPU's energy counters),
`procfs` (the kernel's), `cgroups` (a container's limits), `cuda`.
How torch is set up: `backends` (TF32, cuDNN), `compiler` (torch.compile), `malloc` (the C library's allocator).
What limits memory: `memory_limit`.
"""
