"""How many bytes a device leaves for tensors: the table's figures have sources, the sums are right, a slip is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from launching import CONTAINER, plant, python

from bench.errors import UsageError
from launch.memory import devices
from launch.memory.devices import GIB, Budget, Device, budget, known_devices, parse_bytes

MEMINFO = "MemTotal:        7802880 kB\nMemFree:          204800 kB\nMemAvailable:    6291456 kB\nCached:   1 kB\n"
ORIN = b"nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0nvidia,tegra234\0nvidia,tegra23x\0"


def machine(root: Path, meminfo: str = MEMINFO, compatible: bytes | None = None) -> Path:
    """A copied /proc tree: 6 GiB are available."""
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/meminfo").write_text(meminfo)
    if compatible is not None:
        (root / "proc/device-tree/compatible").write_bytes(compatible)
    return root


# The table


@pytest.mark.parametrize("device", known_devices().values(), ids=known_devices())
def test_a_device_has_room_for_tensors_and_a_source(device: Device) -> None:
    assert device.system_reserve_bytes + device.process_reserve_bytes < device.visible_bytes
    assert device.process_reserve_bytes > 0
    assert device.system_reserve_bytes > 0 if device.unified else device.system_reserve_bytes == 0
    # An issue, a page or a file; only an estimate has none, and says so.
    assert re.search(r"\w/\w\S*#[0-9]+|wiki\.\S+/\w+|\w/\w+, \w+\.md", device.source) or device.estimated
    assert device.estimated == device.source.startswith("no published figure found; ")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", device.name)


@pytest.mark.parametrize("device", known_devices().values(), ids=known_devices())
def test_less_is_visible_than_the_name_says_and_most_of_it(device: Device) -> None:
    nominal = re.search(r"([0-9]+)GB", device.title)
    assert nominal
    # With ECC on, GDDR6 keeps a sixteenth; an L40 reports 44.4 of 48.
    assert 0.8 * int(nominal[1]) * GIB < device.visible_bytes < int(nominal[1]) * GIB


def test_names_are_unique_and_the_orin_family_is_there() -> None:
    assert len(known_devices()) == len(devices.TABLE.read_text().splitlines()) - 1
    orins = {"orin-nano-4gb", "orin-nano-8gb", "orin-nx-8gb", "orin-nx-16gb", "agx-orin-32gb", "agx-orin-64gb"}
    assert orins <= set(known_devices())
    assert {name for name in known_devices() if known_devices()[name].unified} == orins | {"agx-thor-t5000"}
    assert {name for name in known_devices() if known_devices()[name].estimated} == {"orin-nano-4gb", "orin-nx-8gb"}


# Amounts


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("600MiB", 600 * 2**20),
        ("7.4GiB", 7945689497),
        ("1.5GB", 1_500_000_000),
        ("123456", 123456),
        ("123456B", 123456),
        (" 16 gib ", 16 * 2**30),
        ("16GIB", 16 * 2**30),
        (".5KiB", 512),
        ("1TiB", 2**40),
        ("0.1TB", 10**11),
        ("100kb", 100_000),
    ],
)
def test_amounts_are_read_exactly(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0GiB", "0.0001KiB", "-1", "-5GiB", "+5GiB", "nan", "inf", "infGiB", "1e9", "7.4", "7.4G", "7.4Gi"),
        *("7,4GiB", "1_000", "GiB", "5apples", "1.GiB", "0x10", "5ib", "٣GiB", "٣", "", " ", "5 5GiB", "5GiB 5GiB"),
        *("9" * 400, "9" * 400 + "GiB"),
    ],
)
def test_anything_else_is_one_sentence_with_the_value(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_bytes(text)
    assert repr(text) in str(error.value)
    assert "7.4GiB" in str(error.value)
    assert "\n" not in str(error.value)


# Sums


def test_a_device_s_reserves_are_taken_off_and_the_sum_is_shown() -> None:
    found = budget("orin-nano-8gb")
    orin = known_devices()["orin-nano-8gb"]
    assert found.visible_bytes == orin.visible_bytes
    assert found.bytes == orin.visible_bytes - orin.system_reserve_bytes - orin.process_reserve_bytes
    assert found.backend == "cuda"
    first, second = found.explain().splitlines()
    assert first == (
        "orin-nano-8gb: 7.30 GiB visible (free -h, JetPack 5.1.2: dusty-nv/jetson-containers#342) - 0.60 GiB system "
        "(headless) - 1.30 GiB process (CUDA context, Python, torch) = 5.40 GiB for tensors; change with --reserve"
    )
    assert "loader workers" in second


def test_on_a_gpu_of_its_own_the_system_takes_nothing_and_nccl_is_named() -> None:
    found = budget("rtx-4090")
    assert found.bytes == known_devices()["rtx-4090"].visible_bytes - known_devices()["rtx-4090"].process_reserve_bytes
    assert "system" not in found.explain()
    assert "NCCL" in found.explain()
    assert "NCCL" not in budget("rtx-4090", cpu=True).explain()


def test_an_estimate_is_told_as_one() -> None:
    assert "about 3.30 GiB visible (no published figure found" in budget("orin-nano-4gb").explain()
    assert "about" not in budget("orin-nano-8gb").explain().splitlines()[0]


@pytest.mark.parametrize("text", ["orin-nano-8gb", "Orin_Nano_8GB", " ORIN nano  8gb ", "orin_nano-8GB"])
def test_a_name_is_found_however_it_is_spelled(text: str) -> None:
    assert budget(text) == budget("orin-nano-8gb")


def test_a_reserve_replaces_the_whole_of_it() -> None:
    found = budget("orin-nano-8gb", reserve="2GiB")
    assert found.bytes == known_devices()["orin-nano-8gb"].visible_bytes - 2 * GIB
    assert found.system_reserve_bytes + found.process_reserve_bytes == 2 * GIB
    assert "7.30 GiB visible" in found.explain()
    assert "- 2.00 GiB reserve (--reserve) = 5.30 GiB" in found.explain()
    assert "rule of thumb" not in found.explain()


def test_from_bytes_nothing_is_held_back_unless_asked() -> None:
    assert budget("7.4 GiB") == Budget(7945689497, None, 0, 0, "7.4 GiB", "given", "cuda")
    assert budget("7.4GiB").explain() == "7.4GiB: 7.40 GiB given for tensors; change with --reserve"
    assert budget("8GiB", reserve="2GiB", cpu=True).bytes == 6 * GIB
    assert "8.00 GiB given - 2.00 GiB reserve (--reserve) = 6.00 GiB" in budget("8GiB", reserve="2GiB").explain()


@pytest.mark.parametrize("text", ["orin-nano-8gb", "5GiB"])
def test_the_limit_can_be_for_the_cpu(text: str) -> None:
    assert budget(text, cpu=True).backend == "cpu"
    assert budget(text, cpu=True).bytes == budget(text).bytes


# Slips


def test_a_slip_in_a_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        budget("orin-nan-8gb")
    said = str(error.value)
    assert said.startswith("no device 'orin-nan-8gb'; the nearest are: orin-nano-8gb, ")
    assert said.endswith("; or give bytes such as 7.4GiB, or auto")


@pytest.mark.parametrize(
    ("text", "meant"), [("rtx4090", "rtx-4090"), ("a100", "a100-80gb"), ("thor-t5000", "agx-thor-t5000")]
)
def test_the_nearest_are_the_ones_meant(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"the nearest are: .*{meant}"):
        budget(text)


@pytest.mark.parametrize("text", ["", "zzz", "nan", "inf"])
def test_a_name_like_no_other_is_answered_with_all(text: str) -> None:
    with pytest.raises(UsageError, match="orin-nano-8gb"):
        budget(text)


def test_a_gpu_s_number_is_no_budget() -> None:
    with pytest.raises(UsageError, match="4090 bytes, too few"):
        budget("4090")


@pytest.mark.parametrize(
    ("text", "reserve"),
    [("orin-nano-8gb", "8GiB"), ("orin-nano-8gb", "7838315315"), ("1GiB", "1GiB"), ("5GiB", "6GiB")],
)
def test_a_reserve_leaves_something(text: str, reserve: str) -> None:
    with pytest.raises(UsageError, match="give a --reserve below that"):
        budget(text, reserve=reserve)


def test_a_reserve_that_is_no_amount_is_refused() -> None:
    with pytest.raises(UsageError, match="'lots'"):
        budget("orin-nano-8gb", reserve="lots")


# This machine


@pytest.mark.parametrize(("gpus", "cpu"), [(0, False), (0, True), (2, True)])
def test_on_the_cpu_auto_is_what_linux_has_available(tmp_path: Path, gpus: int, cpu: bool) -> None:
    found = budget("Auto", gpus=gpus, cpu=cpu, root=machine(tmp_path))
    assert found.visible_bytes == 6 * GIB
    assert found.bytes == 6 * GIB - devices.CPU_PROCESS_BYTES
    assert found.backend == "cpu"
    assert "this machine: 6.00 GiB free now (MemAvailable) - 0.70 GiB process (Python, torch)" in found.explain()
    assert budget("auto", reserve="1GiB", cpu=True, root=tmp_path).bytes == 5 * GIB


def test_on_a_jetson_auto_is_what_linux_has_available(tmp_path: Path) -> None:
    found = budget("auto", gpus=1, root=machine(tmp_path, compatible=ORIN))
    assert found.bytes == 6 * GIB - devices.JETSON_PROCESS_BYTES
    assert found.backend == "cuda"
    assert "loader workers" in found.explain()


@pytest.mark.parametrize("compatible", [None, ORIN])
def test_in_a_container_auto_is_what_its_limit_leaves(compatible: bytes | None, tmp_path: Path) -> None:
    """1331 MiB less 307 in use, of which the kernel can take back 51; the machine has 6 GiB available."""
    root = plant(machine(tmp_path, compatible=compatible), CONTAINER)
    found = budget("auto", reserve="0", gpus=1 if compatible else 0, root=root)
    assert found.bytes == 1075 * devices.MIB
    assert "1.05 GiB free now (control group, 1.30 GiB by /sys/fs/cgroup/memory.max)" in found.explain()
    shared = budget("auto", reserve="0", cpu=True, processes=2, root=root)
    assert shared.bytes == 1075 * devices.MIB // 2


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 1 kB\n", "MemAvailable: lots\n"])
def test_without_an_answer_from_linux_there_is_no_budget(tmp_path: Path, meminfo: str) -> None:
    with pytest.raises(UsageError, match=r"no MemAvailable in .*meminfo; give bytes"):
        budget("auto", cpu=True, root=machine(tmp_path, meminfo))


def test_without_proc_there_is_no_budget(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no MemAvailable"):
        budget("auto", cpu=True, root=tmp_path)


def test_a_full_machine_has_no_budget(tmp_path: Path) -> None:
    root = machine(tmp_path, "MemAvailable:    524288 kB\n")
    with pytest.raises(UsageError, match=r"this machine has 0\.50 GiB free now"):
        budget("auto", cpu=True, root=root)


ASK = """
from launch.memory.devices import UsageError, budget
try:
    print(budget("auto", gpus=2).explain())
except UsageError as error:
    print(error)
"""


def auto_on_gpus(standin: Path, visible: str | None, behaviour: str = "2") -> str:
    """What auto says on two GPUs with 5 GiB free each."""
    env = {"LD_LIBRARY_PATH": str(standin), "STANDIN_NVML": behaviour, "CUDA_VISIBLE_DEVICES": visible}
    done = python("-c", ASK, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("visible", "first"), [(None, "0"), ("1,0", "1"), (" 1", "1"), ("GPU-known", "GPU-known")])
def test_on_a_gpu_auto_is_what_is_free_on_the_first_visible_one(
    standin_nvml: Path, visible: str | None, first: str
) -> None:
    said = auto_on_gpus(standin_nvml, visible)
    assert f"5.00 GiB free now on GPU {first} (NVML) - 0.60 GiB process (CUDA context, libraries) = 4.40 GiB" in said


@pytest.mark.parametrize(
    ("visible", "behaviour"), [("7", "2"), ("GPU-other", "2"), (None, "jetson"), (None, "refuses")]
)
def test_a_gpu_that_says_nothing_is_not_taken_for_the_host_s_memory(
    standin_nvml: Path, visible: str | None, behaviour: str
) -> None:
    said = auto_on_gpus(standin_nvml, visible, behaviour)
    assert said.startswith(f"NVML does not report what is free on GPU {visible or 0}; give bytes")


CAPABILITIES = """
from launch.memory.devices import budget
print(*(budget(text, gpus=gpus).capability for text in ("auto", "4GiB", "orin-nano-8gb") for gpus in (1, 0)), sep="; ")
"""


def test_the_gpu_at_hand_says_its_compute_capability_and_a_named_one_has_its_own(standin_nvml: Path) -> None:
    """Bytes are of the GPU at hand where there is one; else it is not known."""
    env = {"LD_LIBRARY_PATH": str(standin_nvml), "STANDIN_NVML": "1", "STANDIN_CUDA_CAPABILITY": "8.6"}
    done = python("-c", CAPABILITIES, env={**env, "CUDA_VISIBLE_DEVICES": None})
    assert done.stdout.strip() == "(8, 6); None; (8, 6); None; (8, 7); (8, 7)", done.stderr


def test_torch_is_not_imported() -> None:
    done = python("-c", "import sys; from launch.memory import devices; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
