"""What a Jetson's own files say. None of them needs root. None where a file is missing or does not answer.

Everything is read below `root`, which is / but in tests. Paths and units: NVIDIA's Jetson Linux Developer Guide (r36,
"Platform Power and Performance"), the kernel's Documentation/hwmon/ina3221.rst and ina238.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.machine import environment, procfs

# Sets of rails whose sum is the power of the module, or for Thor's VIN of the developer kit with its carrier board. The
# first complete set is used; if none is complete, the power is unknown. Rails that are missing here are part of another
# one: Orin's VDDQ_VDD2_1V8AO of VIN_SYS_5V0 (Developer Guide r36), all others of VDD_IN. Thor's set of three is for
# boards without the carrier's INA238.
TOTALS = (
    ("VIN",),  # AGX Thor developer kit
    ("VDD_IN",),  # Orin Nano and NX
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor
)
# The kernel's names of the GPU's clock: Orin's on JetPack 6 and 5, Thor's, and in general.
CLOCKS = ("17000000.gpu", "17000000.ga10b", "gpu-gpc-0", "*.gpu", "*.ga10b")
LOADS = ("sys/devices/platform/gpu.0/load", *(f"sys/class/devfreq/{name}/device/load" for name in CLOCKS))
# Counters of how often the clocks were cut because of the power supply.
EVENTS = {"under_voltage": ("oc1",), "over_current": ("oc2", "oc3")}

Rail = tuple[Path, Path]  # files of millivolts and milliamperes


def board(root: Path = Path("/")) -> str | None:
    """Module and carrier board, such as "NVIDIA Jetson AGX Orin Developer Kit"."""
    return environment.board(root / "proc/device-tree/model")


def power_mode(root: Path = Path("/")) -> str | None:
    """The power mode that nvpmodel has set, such as 15W or MAXN; "mode 2" if the mode has no known name."""
    status = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    number = int(status[1])
    modes = re.findall(
        r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf") or "", re.MULTILINE
    )
    return {int(key): name for key, name in modes}.get(number, f"mode {number}")


def total_rails(root: Path = Path("/")) -> dict[str, Rail]:
    """The rails to add up for the total power, by name; empty if no set of TOTALS is complete."""
    here = rails(root)
    for names in TOTALS:
        if set(names) <= set(here):
            return {name: here[name] for name in names}
    return {}


def rails(root: Path = Path("/")) -> dict[str, Rail]:
    """Rail -> its files, from INA3221 chips (three labelled channels) and INA238 (one; the label may be the chip's)."""
    by_label: dict[str, Rail] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if not (_text(chip / "name") or "").startswith("ina"):
            continue
        labels = {path.name[2:-6]: _text(path) for path in sorted(chip.glob("in*_label"))}
        for number, label in (labels or {"1": _text(chip / "label")}).items():
            current = chip / f"curr{number}_input"
            if label and current.exists():  # the "sum of shunt voltages" has no current
                by_label[label] = (chip / f"in{number}_input", current)
    return by_label


def gauges(root: Path = Path("/")) -> Callable[[], dict[str, float | None]]:
    """A function that reads the Jetson: W of the whole module, bytes in use, load from 0 to 1, Celsius, Hz, EVENTS."""
    power_rails, zone = total_rails(root), _zone(root)
    load = _first(root, LOADS)  # in thousandths
    clock = _first(root, tuple(f"sys/class/devfreq/{name}/cur_freq" for name in CLOCKS))  # in Hz
    chips = [path.parent for path in (root / "sys/class/hwmon").glob("hwmon*/oc1_event_cnt")]

    def read() -> dict[str, float | None]:
        memory = procfs.meminfo(root)
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        events = {
            name: _sum([_number(c / f"{oc}_event_cnt") for c in chips for oc in ocs]) for name, ocs in EVENTS.items()
        }
        return {
            "power_w": _sum([_scaled(_product(rail), 1e-6) for rail in power_rails.values()]),
            "used_bytes": None if total is None or available is None else total - available,
            "busy": _scaled(_number(load), 1e-3),
            "temperature_c": _scaled(_number(zone), 1e-3),
            "clock_hz": _number(clock),
            **events,
        }

    return read


def _zone(root: Path) -> Path | None:
    """The temperature that decides about throttling, in 1/1000 Celsius: the junction's, or else the GPU's."""
    zones = {(_text(path) or "").lower(): path.parent / "temp" for path in root.glob("sys/class/thermal/*/type")}
    names = [name for start in ("tj", "gpu") for name in sorted(zones) if name.startswith(start)]
    return zones[names[0]] if names else None


def _first(root: Path, patterns: tuple[str, ...]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace", encoding="utf-8").strip("\0\n ")
    except OSError:  # no such file, or a sensor that is powered off
        return None


def _number(path: Path | None) -> float | None:
    text = _text(path) if path is not None else None
    return float(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _product(rail: Rail) -> float | None:
    volts, amperes = map(_number, rail)
    return None if volts is None or amperes is None else volts * amperes


def _sum(values: list[float | None]) -> float | None:
    """None for no values, and as soon as one is None."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers and len(numbers) == len(values) else None
