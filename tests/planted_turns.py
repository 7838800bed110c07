"""Gates whose launches took turns on a machine whose speed the test knows."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from planted_rows import plant

from bench.record.run_folder import RunFolder

TURNS = 60


def weather(draw: random.Random) -> list[float]:
    """How much slower the machine is in each turn: by up to three times, slowly changing, with sudden peaks."""
    phase = draw.uniform(0, 6.28)
    slow = [2 + math.sin(phase + turn / 10) for turn in range(TURNS)]
    return [factor * draw.choice([1, 1, 1, 1, 1, 1, 1, 1, 1, 4]) for factor in slow]


def gate(folder: Path, pairs: int, factor: float, draw: random.Random, spread: float = 0.003, **more: Any) -> None:
    """A gate's folder; the steps of `head` are longer by the factor. `spread`: of launches; `more`: cells of HEAD."""
    seen = [weather(draw) for _ in range(pairs)]
    side(folder / "base", 1.0, draw, "head", seen, spread)
    side(folder / "head", factor, draw, "base", seen, spread, **more)


def side(
    folder: Path, factor: float, draw: random.Random, other: str, seen: list[list[float]], spread: float, **more: Any
) -> None:
    """A run folder of launches that took turns with those of `other`; `seen`: the machine in each pair's turns."""
    RunFolder(folder).prepare()
    trials, steps = [], []
    for number, machine in enumerate(seen):
        launch = f"{folder.name}{number}"
        level = math.exp(draw.gauss(0, spread))  # what differs between launches, such as where memory lies
        for turn, slowed in enumerate(machine):
            step_s = 0.01 * factor * level * slowed * math.exp(draw.gauss(0, 0.02))
            cpu_s = 0.009 * factor * level * math.exp(draw.gauss(0, 0.01))
            step = {"launch_id": launch, "epoch": 0, "window": turn, "images": 16, "turn": turn}
            measured = {"measured": turn >= 3, "step_time_s": step_s if turn >= 3 else 9.0, "cpu_time_s": cpu_s}
            steps.append(step | measured)
        steps.append({**steps[-1], "window": TURNS, "images": 3, "step_time_s": 1e-6})  # an epoch's last, short step
        p50 = draw.uniform(0.01, 0.04)  # what a launch says as a whole is of the machine
        times = {"step_time_p50_s": p50, "step_cpu_time_p50_s": p50, "images_per_s": 16 / p50, "device_name": "cpu"}
        began = f"2026-01-01T{number // 360:02}:{number // 6 % 60:02}:{number % 6}0.000+00:00"
        row = {"launch_id": launch, "turns_with": f"{other}{number}", "repeat": number, "started_at": began}
        trials.append(row | times | more)
    RunFolder(folder).append("steps", steps)
    plant(folder, *trials)
