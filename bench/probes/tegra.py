"""What only a Jetson has: its board, its power mode, the rails that its power is measured on, its GPU's memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.column import Column
from bench.machine import environment, procfs, tegra
from bench.probes import Aggregation, Cell, Span, Value
from bench.probes import Probe as Base

if TYPE_CHECKING:
    import torch

NVMAP = Column(
    "peak_nvmap_bytes",
    "int",
    "bytes",
    "max",
    "Peak of a Jetson's memory given to its GPU, including other processes, whenever the probes were read.",
)
EPOCHS = [NVMAP]
TRIALS = [
    NVMAP,
    Column("jetson_board", "str", "", "rank 0", "Module and carrier board, as the device tree of a Jetson names them."),
    Column(
        "power_mode",
        "str",
        "",
        "rank 0",
        "Power mode of a Jetson, as nvpmodel names it; it caps the clocks.",
        roles=("machine",),
    ),
    Column("power_rails", "str", "", "rank 0", "Rails of a Jetson whose sum is the power that energy_j is from."),
]


class Probe(Base):
    """Board, power mode and rails, read once, and one peak."""

    TOTALS: ClassVar[dict[str, Aggregation]] = {NVMAP.name: ("peak", "max")}

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def begin(self, device: torch.device) -> None:
        self.is_jetson = environment.is_jetson(self.root)
        self.board = board(self.root) if self.is_jetson else dict.fromkeys(board(self.root))
        self.nvmap: Value = 0.0

    def totals(self) -> dict[str, Value]:
        now = procfs.meminfo(self.root).get("NvMapMemUsed") if self.is_jetson else None
        self.nvmap = None if now is None or self.nvmap is None else max(self.nvmap, now)
        return {NVMAP.name: self.nvmap}

    def derive(self, span: Span) -> dict[str, Cell]:
        peak = span.totals[NVMAP.name]
        found: dict[str, Cell] = {NVMAP.name: None if peak is None else int(peak)}
        return found | (self.board if span.epochs is not None else {})


def board(root: Path) -> dict[str, Cell]:
    """Board, power mode and rails; None for each that is unknown."""
    rails = " ".join(tegra.total_rails(root)) or None
    return {"jetson_board": tegra.board(root), "power_mode": tegra.power_mode(root), "power_rails": rails}


def unreadable(root: Path = Path("/")) -> dict[str, str]:
    """Column -> why it cannot be read here."""
    names = [column.name for column in TRIALS]
    if not environment.is_jetson(root):
        model = tegra.board(root)
        return dict.fromkeys(names, f"{model or 'no /proc/device-tree/model'}: not a Jetson")
    found = {**board(root), NVMAP.name: procfs.meminfo(root).get("NvMapMemUsed")}
    files = {
        "peak_nvmap_bytes": "no NvMapMemUsed in /proc/meminfo",
        "jetson_board": "no /proc/device-tree/model",
        "power_mode": "no /var/lib/nvpmodel/status",
        "power_rails": "no complete set of rails under /sys/class/hwmon",
    }
    return {name: files[name] for name in names if found[name] is None}
