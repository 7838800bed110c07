"""RAPL's counters as the kernel shows them, under a folder in place of /, with values planted."""

from __future__ import annotations

import os
from pathlib import Path

# Zone -> (name, range in microjoules). Two sockets with memory; what is not to be added is here too.
TWO_SOCKETS = {
    "intel-rapl:0": ("package-0", 262_143_328_850),
    "intel-rapl:0:0": ("core", 262_143_328_850),
    "intel-rapl:0:1": ("uncore", 262_143_328_850),
    "intel-rapl:0:2": ("dram", 65_712_999_613),
    "intel-rapl:1": ("package-1", 262_143_328_850),
    "intel-rapl:1:0": ("dram", 65_712_999_613),
    "intel-rapl:2": ("psys", 262_143_328_850),
    "intel-rapl-mmio:0": ("package-0", 262_143_328_850),
}
AMD = {"intel-rapl:0": ("package-0", 65_532_610_987), "intel-rapl:0:0": ("core", 65_532_610_987)}
DIES = {f"intel-rapl:{n}": (f"package-0-die-{n}", 262_143_328_850) for n in range(2)}
Zones = dict[str, tuple[str, int]]


def plant(root: Path, zones: Zones) -> Path:
    """The zones, all at 0: folders of a device, to which links lead, as in sysfs."""
    (root / "sys/class/powercap").mkdir(parents=True)
    for zone, (name, most) in zones.items():
        folder = root / "sys/devices/virtual/powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{most}\n")
        (folder / "energy_uj").write_text("0\n")
        (root / "sys/class/powercap" / zone).symlink_to(f"../../devices/virtual/powercap/{zone}")
    return root


def energy_file(root: Path, zone: str) -> Path:
    """Where its counter is."""
    return root / "sys/class/powercap" / zone / "energy_uj"


def advance(root: Path, zones: Zones, **joules: float) -> None:
    """Let the zones of these names take so many joules: `package_1=3.5` is of package-1. A full counter wraps."""
    for zone, (name, most) in zones.items():
        file = energy_file(root, zone)
        microjoules = int(file.read_text()) + round(joules.get(name.replace("-", "_"), 0.0) * 1e6)
        new = file.with_name(f".{os.getpid()}")
        new.write_text(f"{microjoules % most}\n")
        new.replace(file)  # at once, for whoever reads meanwhile
