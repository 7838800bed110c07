"""A trial of every experiment really runs, from its miniature and shortened further: `make studies` runs them whole."""

from pathlib import Path

from conftest import Launch
from launching import rows

from bench import experiments

SHORT = ["--limit-windows", "2", "--limit-eval", "40", "--epochs", "1", "--warmup-windows", "0", "--no-checkpoint"]


def test_a_trial_of_every_experiment_runs(launch: Launch, tmp_path: Path) -> None:
    last = {name: list(experiments.load(name).arms)[-1] for name in experiments.names()}
    arms = ",".join(dict.fromkeys(last.values()))
    done = launch("run", "--preset", "mini", "--arm", arms, *SHORT, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path, "trials")
    assert {row["status"] for row in found} == {"ok"}
    assert {(row["experiment"], row["arm"]) for row in found} >= set(last.items())
    assert all(float(row["images_per_s"]) > 0 and 0 <= float(row["eval_accuracy"]) <= 1 for row in found)
    labels = {(row["launch_id"], row["label"]) for row in rows(tmp_path, "per_class")}
    assert len(labels) == 10 * len(found)
