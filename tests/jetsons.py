"""Jetsons as their files show them: the few that are read, under a folder in place of /, with values planted."""

from __future__ import annotations

from pathlib import Path

Tree = dict[str, str]

NVPMODEL = """\
# < POWER_MODEL ID=9 NAME=OLD >
< PM_CONFIG DEFAULT=1 >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


def chip(path: str, name: str, *channels: tuple[str, int, int]) -> Tree:
    """A power monitor with these channels: label, mV, mA."""
    files = {f"{path}/name": name}
    for number, (label, millivolts, milliamperes) in enumerate(channels, 1):
        files |= {f"{path}/in{number}_label": label, f"{path}/in{number}_input": str(millivolts)}
        files |= {f"{path}/curr{number}_input": str(milliamperes)}
    if name == "ina3221":  # what its driver adds: shunt voltages in uV, and their sum
        files |= {f"{path}/in4_input": "40", f"{path}/in7_label": "sum of shunt voltages", f"{path}/in7_input": "760"}
    return files


def zones(**celsius: float) -> Tree:
    """Thermal zones, by the first part of their type."""
    pairs = enumerate(celsius.items())
    files = [(f"sys/class/thermal/thermal_zone{n}", name, value) for n, (name, value) in pairs]
    return {f"{zone}/type": f"{name}-thermal" for zone, name, _ in files} | {
        f"{zone}/temp": f"{value * 1000:.0f}" for zone, _, value in files
    }


def meminfo(total: int, available: int, nvmap: int | None = None) -> Tree:
    """/proc/meminfo, in KiB."""
    text = f"MemTotal: {total:>14} kB\nMemFree: 123 kB\nMemAvailable: {available:>9} kB\nHugePages_Total: 0\n"
    return {"proc/meminfo": text + ("" if nvmap is None else f"NvMapMemFree: 0 kB\nNvMapMemUsed: {nvmap} kB\n")}


# 5.0 V x 2.4 A = 12 W on VDD_IN, of which the other two are parts.
ORIN_NANO: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    **meminfo(7_802_000, 4_802_000, nvmap=1_000_000),
    **chip(
        "sys/class/hwmon/hwmon1",
        "ina3221",
        ("VDD_IN", 5000, 2400),
        ("VDD_CPU_GPU_CV", 5000, 900),
        ("VDD_SOC", 5000, 500),
    ),
    "sys/class/hwmon/hwmon2/name": "soctherm_oc",
    **{f"sys/class/hwmon/hwmon2/oc{number}_event_cnt": "4" for number in (1, 2, 3)},
    "sys/devices/platform/gpu.0/load": "640",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000",
    **zones(cpu=50.5, gpu=52.25, tj=53.5),
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": NVPMODEL,
}
# 20 W + 8 W + 6 W; VDDQ_VDD2_1V8AO's 1 W is within VIN_SYS_5V0.
AGX_ORIN: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
    **meminfo(62_780_000, 50_780_000),
    **chip(
        "sys/class/hwmon/hwmon3",
        "ina3221",
        ("VDD_GPU_SOC", 20000, 1000),
        ("VDD_CPU_CV", 20000, 400),
        ("VIN_SYS_5V0", 5000, 1200),
    ),
    **chip("sys/class/hwmon/hwmon4", "ina3221", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0)),
    "sys/class/devfreq/17000000.gpu/device/load": "1000",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000",
    **zones(cpu=60, gpu=61),
    "var/lib/nvpmodel/status": "pmode:0003",
}
# 48 V x 1.5 A = 72 W at the carrier board's input; the module's own rails say 50 W. No load of the GPU.
THOR: Tree = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    **meminfo(128_000_000, 100_000_000),
    **chip(
        "sys/class/hwmon/hwmon2",
        "ina3221",
        ("VDD_GPU", 20000, 1500),
        ("VDD_CPU_SOC_MSS", 20000, 500),
        ("VIN_SYS_5V0", 5000, 2000),
    ),
    "sys/class/hwmon/hwmon4/name": "ina238",
    "sys/class/hwmon/hwmon4/label": "VIN",
    "sys/class/hwmon/hwmon4/in0_input": "3",
    "sys/class/hwmon/hwmon4/in1_input": "48000",
    "sys/class/hwmon/hwmon4/curr1_input": "1500",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000",
    **zones(cpu=53.7, tj=55.1),
    "var/lib/nvpmodel/status": "pmode:0000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
}


def plant(root: Path, tree: Tree, **changes: str | None) -> Path:
    """The tree under this folder; a change is of the file of that name wherever it is, None: it is not there."""
    for path, text in tree.items():
        content = changes.get(Path(path).name, text)
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_text() != f"{content}\n":  # at once, for whoever reads meanwhile
            new = file.with_name(f".{file.name}")
            new.write_text(f"{content}\n")
            new.replace(file)
    return root
