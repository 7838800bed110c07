"""cuDNN's newer interface on the stand-in GPU."""

from __future__ import annotations

import json

from launching import python
from standin_cuda.standin import Standin

CONVOLUTIONS = """
import json
import os
import torch
from tests.standin_cuda import counts

layer = torch.nn.Conv2d(16, 16, 3, bias=False).cuda().to(memory_format=torch.channels_last)
images = torch.zeros(32, 16, 8, 8, device="cuda", requires_grad=True).to(memory_format=torch.channels_last)
gradient = torch.zeros(32, 16, 6, 6, device="cuda").to(memory_format=torch.channels_last)
found = []
for kind in (torch.float32, torch.bfloat16, torch.float16):
    for _ in range(2):
        before = counts.read()
        with torch.autocast("cuda", dtype=kind, enabled=kind != torch.float32):
            result = layer(images)
        result.backward(gradient.to(result.dtype))
        found.append(counts.read().since(before)._asdict())
print(json.dumps(found), flush=True)
os._exit(0)  # a thread of autograd's that still wants Python while it ends would abort the process
"""


def test_a_convolution_is_three_calls_at_each_precision_and_casts_besides(standin_cuda: Standin) -> None:
    """Forward, images' gradient, weights' gradient; the first of a kind and those after it, which find their plan."""
    done = python("-c", CONVOLUTIONS, env=standin_cuda.variables(arithmetic=False))
    assert done.returncode == 0, done.stderr
    _, full, *half = found = json.loads(done.stdout)
    assert {each["library_calls"] for each in found} == {3}
    # Images, weight and gradient are cast, and two gradients back.
    assert all(each["launches"] == full["launches"] + 5 for each in half)
    assert {each["waits"] for each in found} == {0}
