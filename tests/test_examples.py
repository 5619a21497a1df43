"""The examples that run a suite again and again: they are read by their own readers, and the script by a shell."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SCRIPT = EXAMPLES / "track-new-image.sh"

DOCKER = """#!/bin/sh
[ "$1" = pull ] || cat "$STATE/digest"
"""

TPW = """#!/bin/sh
echo "$@" >> "$STATE/commands"
exit "$(cat "$STATE/$1" 2>/dev/null || echo 0)"
"""


@pytest.mark.parametrize("path", [SCRIPT, EXAMPLES / "track.slurm"], ids=lambda path: path.name)
def test_a_shell_can_read_it(path: Path) -> None:
    assert os.access(path, os.X_OK)
    subprocess.run(["/bin/bash", "-n", path], check=True)


def test_the_workflow_runs_the_script_on_a_schedule_and_by_hand() -> None:
    text = (EXAMPLES / "track.workflow.yaml").read_text("utf-8")
    flow = yaml.load(text, yaml.BaseLoader)  # plain strings: "on" stays a word
    assert {"schedule", "workflow_dispatch"} <= flow["on"].keys()
    (job,) = flow["jobs"].values()
    assert any(SCRIPT.name in step.get("run", "") for step in job["steps"])
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_the_crontab_has_five_fields_of_time_and_no_bare_percent() -> None:
    lines = (EXAMPLES / "track.crontab").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line[:1].isdigit()]
    minute, hour, *rest, command = line.split(maxsplit=5)
    assert (int(minute) < 60, int(hour) < 24, rest) == (True, True, ["*", "*", "*"])
    assert SCRIPT.name in command
    assert "%" not in line


def test_the_batch_script_asks_for_gpus_before_anything_else() -> None:
    lines = (EXAMPLES / "track.slurm").read_text("utf-8").splitlines()
    asked = [number for number, line in enumerate(lines) if line.startswith("#SBATCH --")]
    assert asked[-1] < next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert any("--gpus-per-node" in line for line in lines)
    assert any(SCRIPT.name in line for line in lines)


class Machine:
    """A machine whose docker answers with a digest, and whose tpw writes down what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in {"docker": DOCKER, "tpw": TPW}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(self, digest: str, **statuses: int) -> tuple[int, list[str]]:
        """Exit status of the script, and what tpw was asked."""
        (self.folder / "digest").write_text(f"repo/engine@sha256:{digest}\n")
        (self.folder / "commands").write_text("")
        for command in ("suite", "track"):
            (self.folder / command).write_text(str(statuses.get(command, 0)))
        env = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}", "STATE": str(self.folder), "TPW": "tpw"}
        env |= {"RESULTS": str(self.folder / "results")}
        argv = ["/bin/bash", str(SCRIPT), "suites/nightly.yaml", "repo/engine:latest", "model.path=/m"]
        ended = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        return ended.returncode, (self.folder / "commands").read_text().splitlines()


def test_every_new_image_is_measured_once_and_a_regression_fails(tmp_path: Path) -> None:
    machine, results = Machine(tmp_path), tmp_path / "results"
    suite = "suite run suites/nightly.yaml --starts 2 engine.runtime=docker engine.image='repo/engine@sha256:{}' "
    suite += f"results_dir={results} model.path=/m"
    track = f"track nightly-* --fail-on-regression 3% --results {results}"
    assert machine.run("a") == (0, [suite.format("a")])  # nothing to compare with
    assert machine.run("a") == (0, [])
    assert machine.run("b") == (0, [suite.format("b"), track])
    assert machine.run("c", track=1) == (1, [suite.format("c"), track])
    assert machine.run("d", suite=130) == (130, [suite.format("d")])  # stopped: the next run tries again
    assert machine.run("d", suite=1) == (1, [suite.format("d"), track])  # a config failed: told, and tried again
    assert machine.run("d") == (0, [suite.format("d"), track])
    (results / "measured-nightly.txt").write_text("repo/engine@sha256:a\n")
    assert machine.run("b", suite=1) == (1, [suite.format("b"), track])  # the second does not start, and is compared
