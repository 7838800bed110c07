"""NCCL between stand-in GPUs: collectives are carried out behind the host's back, can hang, and can be aborted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

from conftest import CHECKOUT
from launching import with_variables
from standin_cuda.standin import Standin

RANK = """
import datetime, gc, sys, threading
gc.disable()  # its searches take a third of the time of such imports
import torch
import torch.distributed as dist

rank, path = int(sys.argv[1]), sys.argv[2]
torch.cuda.set_device(rank)
store = dist.FileStore(path, 2)
limit = datetime.timedelta(seconds=5)
dist.init_process_group("nccl", store=store, rank=rank, world_size=2, timeout=limit)

for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64):
    mine = torch.arange(3, device="cuda").to(kind) + rank
    dist.all_reduce(mine)
    assert mine.tolist() == [1, 3, 5], mine
    dist.all_reduce(mine, dist.ReduceOp.MAX)
many = torch.full((3 * 2**20,), 0.1 * (rank + 1), device="cuda")  # in several pieces
dist.all_reduce(many)
assert torch.equal(many.cpu(), torch.full((3 * 2**20,), 0.1) + torch.full((3 * 2**20,), 0.2))
told = torch.tensor([7.0 if rank == 1 else 0.0], device="cuda")
dist.broadcast(told, 1)
assert told.item() == 7
found = [torch.empty(2, device="cuda") for _ in range(2)]
dist.all_gather(found, torch.tensor([rank, 10.0], device="cuda"))
assert torch.stack(found).tolist() == [[0, 10], [1, 10]]
share = torch.empty(1, device="cuda")
dist.reduce_scatter(share, [torch.tensor([1.0 + rank], device="cuda"), torch.tensor([5.0 + rank], device="cuda")])
assert share.item() == [3, 11][rank]
dist.barrier(device_ids=[rank])

# Rank 1 comes late: rank 0 goes on until it waits for the device.
if rank == 1:
    store.get("queued")
value = torch.ones(1, device="cuda")
work = dist.all_reduce(value, async_op=True)
if rank == 0:
    work.wait()  # has the stream wait, not the host
    event = torch.cuda.Event()
    event.record()
    assert not work.is_completed()
    assert not event.query()
    store.set("queued", "")
    event.synchronize()
    assert event.query()
torch.cuda.synchronize()
assert value.item() == 2
assert work.is_completed()

# Rank 1 never comes, and another thread aborts.
if rank == 0:
    dist.all_reduce(value)
    event.record()
    assert not event.query()
    abort = threading.Timer(1.0, dist.distributed_c10d._abort_process_group)
    abort.start()
    event.synchronize()
    abort.join()
    print("aborted", flush=True)
else:
    dist.distributed_c10d._abort_process_group()
dist.init_process_group("nccl", store=dist.PrefixStore("again", store), rank=rank, world_size=2, timeout=limit)
dist.all_reduce(value)
torch.cuda.synchronize()

# Nor now, and torch's own time limit passes.
if rank == 0:
    print("waits", flush=True)
    dist.all_reduce(value)
    torch.cuda.synchronize()
    print("came back")
else:
    store.get("never")
"""


def test_collectives_are_right_and_the_host_goes_on_until_one_hangs(standin_cuda: Standin, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    words = [sys.executable, str(tmp_path / "rank.py")]
    # torch waits four times as long for a dump, also of nothing, before it ends a process.
    hasty = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "250"}
    env = with_variables({**standin_cuda.variables(gpus=2), **hasty})

    def start(rank: int) -> subprocess.Popen[str]:
        more = [str(rank), str(tmp_path / "store")]
        return subprocess.Popen([*words, *more], cwd=CHECKOUT, env=env, stdout=PIPE, stderr=PIPE, text=True)

    ranks = [start(rank) for rank in range(2)]
    try:
        out, said = ranks[0].communicate(timeout=100)
        assert out.split() == ["aborted", "waits"], said
        assert ranks[0].returncode == -signal.SIGABRT
        assert "Watchdog caught collective operation timeout" in said
        assert ranks[1].poll() is None, "it was to wait for ever"
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
