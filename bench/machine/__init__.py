"""Which machine is this, how is torch set up on it, and what limits memory?

What is here: `environment` (CPU, versions, commit), `repository` (git), `gpus` and `torch_build` (without importing
torch), `devices` (what a trial runs on), `nvml` (NVIDIA's library), `tegra` (a Jetson's files), `rapl` (a CPU's energy
counters), `procfs` (the kernel's), `cuda`.
How torch is set up: `backends` (TF32, cuDNN), `compiler` (torch.compile), `malloc` (the C library's allocator).
What limits memory: `memory_limit`.
"""
