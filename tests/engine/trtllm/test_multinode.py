"""One engine over several machines: how it is started, and what is refused."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.folder import write_definition
from pipeline.engine.protocol import Availability, Rendered
from pipeline.engine.trtllm.adapter import TrtllmEngine
from pipeline.engine.trtllm.multinode import ALL_ADDRESSES, across_nodes, num_nodes, why_not_here
from pipeline.engine.trtllm.versions import NEWEST
from pipeline.engine_config import EngineConfig
from pipeline.errors import ConfigError
from pipeline.rig.served import ServedRig
from pipeline.store import Store
from pipeline.study import Study
from tests.builders import make_study
from tests.engine.trtllm.hand_run import assert_is_bash, calls, environment, install, run

NVL72 = make_study(
    "model=deepseek-r1", "hardware=gb200_nvl72", "engine=trtllm", "precision=auto", "parallelism=auto",
    "batching=auto", "workload=chat_1k_1k", "study=test",
)  # fmt: skip


JOB = {"SLURM_JOB_NODELIST": "tray-[a-b]"}
"""What Slurm tells a shell within an allocation."""


def config(tp: int, pp: int = 1) -> EngineConfig:
    return EngineConfig.from_axes("trtllm", {"precision.weights": "fp4", "parallelism.tp": tp, "parallelism.pp": pp})


def spread(study: Study, tp: int, pp: int = 1) -> Rendered:
    return across_nodes(TrtllmEngine().render(config(tp, pp), study), config(tp, pp), study)


def written(folder: Path, tp: int, study: Study = NVL72) -> Path:
    write_definition(folder, spread(study, tp), {}, values={"port": "8000"}, wanted={"model": "set it"})
    return folder / "serve.sh"


def with_engine(study: Study, **settings: str) -> Study:
    return dataclasses.replace(study, engine=dataclasses.replace(study.engine, **settings))  # type: ignore[arg-type]


def test_what_fits_one_machine_is_left_alone() -> None:
    alone = TrtllmEngine().render(config(4), NVL72)
    assert across_nodes(alone, config(4), NVL72) == alone
    assert num_nodes(8, make_study("hardware=b200", "study=test").hardware) == 1
    unbounded = dataclasses.replace(NVL72.hardware, num_gpus_per_node=None)
    assert num_nodes(72, unbounded) == 1


@pytest.mark.parametrize("hardware", ["h100", "h200", "b200", "b300"])
def test_a_machine_of_hgx_has_eight_gpus(hardware: str) -> None:
    found = make_study(f"hardware={hardware}", "study=test").hardware
    assert (num_nodes(8, found), num_nodes(16, found)) == (1, 2)


def test_srun_starts_a_task_per_gpu_on_whole_machines() -> None:
    rendered = spread(NVL72, 8, pp=2)
    assert rendered.argv == (
        "srun", "--nodes=4", "--ntasks=16", "--ntasks-per-node=4", "--mpi=pmix", "{bin}/trtllm-llmapi-launch",
        "{bin}/trtllm-serve", "{model}", "--host", ALL_ADDRESSES, "--port", "{port}", "--config", "{dir}/config.yaml",
    )  # fmt: skip
    assert "tensor_parallel_size: 8" in rendered.files["config.yaml"]
    assert rendered.rendered_hash != TrtllmEngine().render(config(8, 2), NVL72).rendered_hash


@given(num_gpus=st.integers(1, 72))
def test_an_engine_has_part_of_one_machine_or_whole_ones(num_gpus: int) -> None:
    if num_gpus > 4 and num_gpus % 4:
        with pytest.raises(ConfigError, match="multiple of 4"):
            num_nodes(num_gpus, NVL72.hardware)
    else:
        nodes = num_nodes(num_gpus, NVL72.hardware)
        assert num_gpus <= nodes * 4 < num_gpus + 4


def test_the_script_says_to_srun_what_argv_says(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    assert_is_bash(script)
    env = environment(
        install(tmp_path / "bin", "srun"), tmp_path / "noted", **JOB, MODEL="/models/r1", SLURM_NTASKS="3"
    )
    assert run(script, env).returncode == 0
    [(program, _, *words)] = calls(tmp_path / "noted")
    assert (program, words) == (
        "srun",
        ["--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--mpi=pmix", "trtllm-llmapi-launch", "trtllm-serve",
         "/models/r1", "--host", ALL_ADDRESSES, "--port", "8000", "--config", f"{tmp_path}/engine/config.yaml"],
    )  # fmt: skip


def test_outside_an_allocation_it_says_which_one_it_needs(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    done = run(script, environment(install(tmp_path / "bin", "srun"), tmp_path / "noted", MODEL="/models/r1"))
    assert (done.returncode != 0, calls(tmp_path / "noted")) == (True, [])
    assert "run it in salloc --nodes=2 --gpus-per-node=4" in done.stderr


def test_a_container_gets_the_model_and_the_folder(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    env = environment(install(tmp_path / "bin", "srun"), tmp_path / "noted", **JOB, MODEL="/models/r1")
    assert run(script, {**env, "CONTAINER_IMAGE": "nvcr.io#nvidia/tensorrt-llm/release:1"}).returncode == 0
    [(_, _, *words)] = calls(tmp_path / "noted")
    mounts = f"--container-mounts=/models/r1:/models/r1,{tmp_path}/engine:{tmp_path}/engine"
    assert words[4:6] == ["--container-image=nvcr.io#nvidia/tensorrt-llm/release:1", mounts]


def test_a_snapshot_comes_into_the_container_with_its_blobs_and_a_model_from_wherever_it_is_named(
    tmp_path: Path,
) -> None:
    script = written(tmp_path / "engine", 8)
    repo, here = f"{tmp_path}/hub/models--org--name", str(Path.cwd())
    for model, found, mount in (
        (f"{repo}/snapshots/0123", f"{repo}/snapshots/0123", repo),
        (f"{repo}/snapshots/0123/", f"{repo}/snapshots/0123/", repo),
        ("models/r1", f"{here}/models/r1", f"{here}/models/r1"),
    ):
        env = environment(
            install(tmp_path / "bin", "srun"), tmp_path / "noted", **JOB, MODEL=model, CONTAINER_IMAGE="i"
        )
        assert run(script, env).returncode == 0
        [(_, _, *words)] = calls(tmp_path / "noted")
        assert words[5] == f"--container-mounts={mount}:{mount},{tmp_path}/engine:{tmp_path}/engine"
        assert found in words
        for path in (tmp_path / "noted").iterdir():
            path.unlink()


def test_an_image_file_is_the_default_container(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8, with_engine(NVL72, runtime="enroot", image="/images/trtllm.sqsh"))
    env = environment(install(tmp_path / "bin", "srun"), tmp_path / "noted", **JOB, MODEL="/models/r1")
    assert run(script, env).returncode == 0
    assert calls(tmp_path / "noted")[0][6] == "--container-image=/images/trtllm.sqsh"


def test_mpirun_places_as_many_ranks_and_passes_the_environment_on(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    env = environment(install(tmp_path / "bin", "mpirun"), tmp_path / "noted", MODEL="/models/r1", LAUNCHER="mpirun")
    without = run(script, env)
    assert (without.returncode != 0, "HOSTFILE" in without.stderr) == (True, True)
    assert run(script, {**env, "HOSTFILE": "hosts"}).returncode == 0
    [(_, _, *words)] = calls(tmp_path / "noted")
    assert words[:5] == ["-n", "8", "--map-by", "ppr:4:node", "-x"]
    assert words[words.index("--hostfile") :][:4] == ["--hostfile", "hosts", "trtllm-llmapi-launch", "trtllm-serve"]
    assert {words[n + 1] for n, word in enumerate(words) if word == "-x"} == set(spread(NVL72, 8).env)


def test_a_path_with_a_space_is_refused_before_anything_starts(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    env = environment(install(tmp_path / "bin", "srun"), tmp_path / "noted", **JOB, MODEL="/my models/r1")
    done = run(script, env)
    assert (done.returncode, calls(tmp_path / "noted")) == (2, [])
    assert "splits arguments at spaces" in done.stderr
    here = dataclasses.replace(NVL72, model=dataclasses.replace(NVL72.model, path="/my models/r1"))
    with pytest.raises(ConfigError, match=r"model\.path='/my models/r1'"):
        spread(here, 8)


def test_an_unknown_launcher_is_refused(tmp_path: Path) -> None:
    script = written(tmp_path / "engine", 8)
    env = environment(install(tmp_path / "bin"), tmp_path / "noted", MODEL="/models/r1", LAUNCHER="ray")
    done = run(script, env)
    assert (done.returncode, "allowed are srun and mpirun" in done.stderr) == (2, True)


class EngineAtHand(TrtllmEngine):
    """TensorRT-LLM with every checkpoint."""

    def availability(self, study: Study) -> Availability:
        return Availability(version=NEWEST)

    def places(self, config: EngineConfig, study: Study) -> dict[str, str]:
        return {"model": "/models/x"}


def test_a_rig_of_one_machine_refuses_it(tmp_path: Path) -> None:
    assert why_not_here(config(4), NVL72) is None
    assert why_not_here(config(8), make_study("hardware=b200", "study=test")) is None
    meter: Any = SimpleNamespace(info=SimpleNamespace(devices=("GPU-0",)))
    rig = ServedRig(NVL72, EngineAtHand(), lambda _: meter, Store(tmp_path))
    assert rig.refusal(config(4)) is None
    refused = rig.refusal(config(8)) or ""
    assert "8 GPUs are more than the 4 of one machine of gb200_nvl72" in refused
    assert "rendered only" in refused
