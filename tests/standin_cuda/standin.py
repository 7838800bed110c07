"""How a command is started so that it finds stand-in GPUs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GIB = 2**30


@dataclass(frozen=True)
class Standin:
    """The stand-in, built into a folder."""

    folder: Path

    def variables(
        self,
        gpus: int = 1,
        capability: str = "9.0",
        memory_bytes: int = 80 * GIB,
        arithmetic: bool = True,
        **more: str | None,
    ) -> dict[str, str | None]:
        """Environment variables, None for one to unset. Commands with the same ones share the devices' memory."""
        return {
            "ACCELERATE_USE_CPU": None,
            "CUDA_VISIBLE_DEVICES": None,
            "LD_PRELOAD": str(self.folder / "libstandin_cuda.so"),
            "LD_LIBRARY_PATH": str(self.folder),
            "PYTHONPATH": str(HERE / "arithmetic") if arithmetic else None,
            "STANDIN_CUDA": str(gpus),
            "STANDIN_CUDA_BYTES": str(memory_bytes),
            "STANDIN_CUDA_CAPABILITY": capability,
            "STANDIN_CUDA_SHARED": str(self.folder / f"{uuid.uuid4().hex}.shared"),
            "STANDIN_NVML": str(gpus),
            **more,
        }
