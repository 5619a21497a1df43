"""A split deployment as a bundle: one machine runs it by run.sh, Kubernetes by NVIDIA Dynamo."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.bundle import dynamo, write_bundle
from pipeline.bundle.split import read_split
from pipeline.bundle.verify import verify_bundle
from pipeline.disaggregation import Deployment
from pipeline.engine.catalog import find_engine
from pipeline.engine.trtllm.disaggregated import render_deployment
from pipeline.engine_config import EngineConfig, Precision
from pipeline.errors import ConfigError
from pipeline.rendering import of_deployment, write
from pipeline.store import Store
from pipeline.study import Study
from tests.builders import make_row, make_trial
from tests.bundle.recorded import DECISION
from tests.engine.trtllm.hand_run import assert_is_bash
from tests.engine.trtllm.test_disaggregated import only, study


def measured_server(asked: Study, deployment: Deployment) -> dict[str, Any]:
    """What `write_bundle` takes of a split deployment that tpw render wrote and tpw measure url= measured."""
    declared = EngineConfig(
        engine="attached",
        precision=Precision(weights="fp4"),
        knobs={"rendered": render_deployment(deployment, asked).rendered_hash},
    )
    requested = {"engine.knobs.rendered": declared.knobs["rendered"]}
    shared = {
        "trial_id": "t", "engine": "attached", "config_hash": declared.config_hash,
        "config_json": json.dumps(requested), "rendered_hash": declared.config_hash,
    }  # fmt: skip
    row = make_row(**shared, num_gpus=deployment.num_gpus, workload=asked.workload.name)
    return {"study": asked, "trial": make_trial(**shared), "rows": [row], "decision": DECISION}


def test_a_split_deployment_has_a_worker_for_each_half(tmp_path: Path) -> None:
    asked = study()
    folder = write_bundle(tmp_path / "split", **measured_server(asked, only(asked)), deployment=only(asked))
    config_map, graph = yaml.safe_load_all((folder / "dynamo.yaml").read_text())
    services = graph["spec"]["services"]
    assert {name: each["replicas"] for name, each in services.items()} == {"Frontend": 1, "prefill": 2, "decode": 1}
    assert [services[name]["resources"]["limits"]["gpu"] for name in ("prefill", "decode")] == ["1", "2"]
    files = render_deployment(only(asked), asked).files
    assert config_map["data"] == {
        "prefill.yaml": files["context_config.yaml"],
        "decode.yaml": files["generation_config.yaml"],
    }
    args = services["decode"]["extraPodSpec"]["mainContainer"]["args"]
    assert args[args.index("--disaggregation-mode") + 1] == "decode"
    page = (folder / "README.md").read_text()
    assert "NVIDIA Dynamo, **rendered and checked, not run**" in page
    assert (folder / "dynamo.yaml").read_text().startswith("# Rendered and checked")
    assert "num_context_servers=2" in page
    assert "No `compose.yaml`: its orchestrator listens on 127.0.0.1" in page
    assert "That of the measured start was not kept: each launch tunes anew" in page
    assert_is_bash(folder / "run.sh")


def test_a_rendered_folder_tells_what_was_started(tmp_path: Path) -> None:
    asked = study()
    folder = write(of_deployment(only(asked), asked, find_engine(asked)), tmp_path)
    found, deployment = read_split(folder)
    assert (found, deployment) == (asked, only(asked))
    given = measured_server(asked, only(asked)) | {"study": found, "deployment": deployment}
    bundle = write_bundle(tmp_path / "split", **given)
    assert (bundle / "dynamo.yaml").is_file()
    assert verify_bundle(bundle, Store(tmp_path)).differences == ()
    (folder / "meta.json").write_text("{}")
    for wrong in (folder, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"--rendered=.*is no split deployment that tpw render"):
            read_split(wrong)


def test_a_deployment_that_was_measured_under_another_workload_is_refused(tmp_path: Path) -> None:
    asked = study()
    given = measured_server(asked, only(asked)) | {"study": study("workload=rag_8k_1k")}
    with pytest.raises(ConfigError, match="workload=chat_1k_1k, and what runs was rendered for rag_8k_1k"):
        write_bundle(tmp_path / "b", **given, deployment=only(asked))


def test_a_deployment_that_others_reach_has_a_container(tmp_path: Path) -> None:
    asked = study("engine.host=0.0.0.0")
    folder = write_bundle(tmp_path / "split", **measured_server(asked, only(asked)), deployment=only(asked))
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 4


def test_several_machines_have_no_compose_file(tmp_path: Path) -> None:
    asked = study(
        "disaggregation.generation.parallelism.tp=8", "disaggregation.num_context_servers=1", "hardware.num_gpus=16"
    )
    folder = write_bundle(tmp_path / "split", **measured_server(asked, only(asked)), deployment=only(asked))
    assert not (folder / "compose.yaml").exists()
    assert "No `compose.yaml`: it spans 2 machines" in (folder / "README.md").read_text()


def test_a_server_of_someone_else_is_shipped_only_as_what_it_was_rendered_from(tmp_path: Path) -> None:
    asked = study()
    given = measured_server(asked, only(asked))
    with pytest.raises(ConfigError, match="a server that someone else started, whose files are not known"):
        write_bundle(tmp_path / "b", **given)
    other = only(study("disaggregation.num_context_servers=1"))
    with pytest.raises(ConfigError, match="which nobody has measured"):
        write_bundle(tmp_path / "b", **given, deployment=other)


@pytest.mark.parametrize(
    ("old", "new"),
    [("nodeCount: 2", "nodeCount: 1"), ("componentType: frontend", "componentType: main"), ("kind: Dyn", "kind: Din")],
)
def test_what_breaks_the_structure_is_found(tmp_path: Path, old: str, new: str) -> None:
    asked = study(
        "disaggregation.generation.parallelism.tp=16", "disaggregation.num_context_servers=1", "hardware.num_gpus=24"
    )
    folder = write_bundle(tmp_path / "b", **measured_server(asked, only(asked)), deployment=only(asked))
    text = (folder / "dynamo.yaml").read_text()
    dynamo.check(text)
    assert old in text
    with pytest.raises(ValueError, match="validation error"):
        dynamo.check(text.replace(old, new))
