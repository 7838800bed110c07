"""What NVIDIA's management library is asked, through a compiled library that stands in for it."""

from pathlib import Path

import pytest
from launching import python

from bench.machine import environment, nvml

ASK = """
from bench.machine import nvml
gauges = nvml.gauges({uuid!r})
print(nvml.device_count(), nvml.driver_version(), gauges and gauges()["used_bytes"])
"""


def ask(standin: Path, behaviour: str, uuid: str = "GPU-known") -> str:
    done = python("-c", ASK.format(uuid=uuid), env={"LD_LIBRARY_PATH": str(standin), "STANDIN_NVML": behaviour})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_devices_driver_and_memory_are_what_the_library_says(standin_nvml: Path) -> None:
    assert ask(standin_nvml, "2") == f"2 550.54.15 {3 * 2**30:.1f}"


def test_an_unknown_device_is_none_and_the_rest_is_still_answered(standin_nvml: Path) -> None:
    assert ask(standin_nvml, "2", uuid="GPU-other") == "2 550.54.15 None"


def test_a_part_of_a_gpu_is_found_by_its_own_name(standin_nvml: Path) -> None:
    """CUDA gives the identity of a MIG device as it gives that of a whole one."""
    assert ask(standin_nvml, "2", uuid="GPU-part") == f"2 550.54.15 {3 * 2**30:.1f}"


def test_a_library_that_supports_nothing_answers_none_throughout(standin_nvml: Path) -> None:
    assert ask(standin_nvml, "jetson") == "None None None"


def test_a_library_that_cannot_be_initialised_is_as_none(standin_nvml: Path) -> None:
    assert ask(standin_nvml, "refuses") == "None None None"


def test_a_damaged_library_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library at all")
    assert ask(tmp_path, "2") == "None None None"


@pytest.mark.parametrize(
    ("behaviour", "uuid", "number"),
    [
        ("4", "GPU-3", 3),
        ("4", "GPU-known", 0),
        ("2", "GPU-3", None),
        ("2", "GPU-part", None),
        ("refuses", "GPU-3", None),
    ],
)
def test_a_gpu_s_number_is_known_by_its_uuid_and_a_part_of_one_has_none(
    standin_nvml: Path, behaviour: str, uuid: str, number: int | None
) -> None:
    words = "-c", f"from bench.machine import nvml; print(nvml.index({uuid!r}))"
    done = python(*words, env={"LD_LIBRARY_PATH": str(standin_nvml), "STANDIN_NVML": behaviour})
    assert done.stdout.strip() == str(number), done.stderr


@pytest.mark.parametrize(
    ("behaviour", "device", "free"),
    [("2", "0", 5 * 2**30), ("2", "GPU-known", 5 * 2**30), ("2", "2", None), ("2", "", None), ("jetson", "0", None)],
)
def test_what_is_free_is_known_by_index_and_by_uuid(
    standin_nvml: Path, behaviour: str, device: str, free: int | None
) -> None:
    words = "-c", f"from bench.machine import nvml; print(nvml.free_bytes({device!r}))"
    done = python(*words, env={"LD_LIBRARY_PATH": str(standin_nvml), "STANDIN_NVML": behaviour})
    assert done.stdout.strip() == str(free), done.stderr


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"NVIDIA Jetson Orin Nano Developer Kit\0", "NVIDIA Jetson Orin Nano Developer Kit"), (b"\0", None), (b"", None)],
)
def test_a_board_is_named_by_its_device_tree(tmp_path: Path, content: bytes, name: str | None) -> None:
    (tmp_path / "model").write_bytes(content)
    assert environment.board(tmp_path / "model") == name


def test_a_machine_without_device_tree_has_no_board(tmp_path: Path) -> None:
    assert environment.board(tmp_path / "model") is None


LIMITS = "from bench.machine import nvml; print(list(nvml.limits('GPU-known').values()), nvml.is_module('GPU-known'))"


@pytest.mark.parametrize(
    ("behaviour", "state", "name", "said"),
    [
        ("1", "", "NVIDIA H100 80GB HBM3", "[400.0, 1410000000.0, 1980000000.0] False"),
        ("1", "limit_mw 312500\napplication_mhz -3", "NVIDIA GH200 480GB", "[312.5, None, 1980000000.0] True"),
        ("0", "", "NVIDIA GH200 480GB", "[None, None, None] False"),
        ("jetson", "", "Orin (nvgpu)", "[None, None, None] False"),
        ("refuses", "", "", "[None, None, None] False"),
    ],
)
def test_what_a_gpu_is_set_to_and_whether_it_counts_a_module(
    standin_nvml: Path, tmp_path: Path, behaviour: str, state: str, name: str, said: str
) -> None:
    (tmp_path / "state").write_text(state)
    variables = {"STANDIN_NVML": behaviour, "STANDIN_NVML_NAME": name, "STANDIN_NVML_STATE": str(tmp_path / "state")}
    done = python("-c", LIMITS, env={"LD_LIBRARY_PATH": str(standin_nvml), **variables})
    assert done.stdout.strip() == said, done.stderr


def test_throttle_reasons_are_told_apart_from_what_is_no_weakness() -> None:
    """Bits of nvml.h: idle 0x1, clocks that were chosen 0x2, a display's 0x100; a power cap 0x4, heat 0x20 + 0x40."""
    assert {name for name, held in nvml.reasons(0x1 | 0x2 | 0x100).items() if held} == set()
    assert {name for name, held in nvml.reasons(0x1 | 0x4).items() if held} == {"sw_power_cap"}
    heat = {name for name, held in nvml.reasons(0x60).items() if held}
    assert heat == {"sw_thermal_slowdown", "hw_thermal_slowdown", "throttled"}
    assert {name for name, held in nvml.reasons(0x8).items() if held} == {"hw_slowdown", "slowed"}
    brake = {name for name, held in nvml.reasons(0x8 | 0x80).items() if held}
    assert brake == {"hw_slowdown", "hw_power_brake_slowdown", "throttled"}
    assert not nvml.reasons(0x10 | 0x200 | 0x400)["throttled"]
    assert set(nvml.reasons(None).values()) == {None}
