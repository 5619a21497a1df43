"""The rig with a real server: what its engine folder holds, and what it refuses before anything is started."""

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.engine.direct import FAILURES, as_object, post
from pipeline.engine.openvino import OpenvinoEngine
from pipeline.engine.process import free_port
from pipeline.engine.protocol import Engine, Rendered
from pipeline.errors import ConfigError
from pipeline.meter.catalog import open_meter
from pipeline.rig.protocol import TrialError
from pipeline.rig.served import ServedRig
from pipeline.space import build_space
from pipeline.store import Store
from pipeline.study import Study
from pipeline.vocabulary import TrialStatus
from pipeline.workload import OperatingPoint
from tests.builders import make_study

POINT = OperatingPoint(concurrency=2)


class RefusingEngine(OpenvinoEngine):
    """Refuses every config in its preflight, as TensorRT-LLM does what its TorchLlmArgs does not take."""

    def preflight(self, rendered: Rendered, study: Study, places: Mapping[str, str]) -> str | None:
        return f"{sorted(places)} of {study.model.name}: no"


class UntestedEngine(OpenvinoEngine):
    """Of a version that nobody looked at."""

    def tested_version(self, version: str) -> bool:
        return False


def study(tmp_path: Path, *overrides: str) -> Study:
    quick = ("plan.window_s=0.6", "plan.warmup_s=0.1")
    return make_study(f"results_dir={tmp_path}/results", f"engines_dir={tmp_path}/engines", *quick, *overrides)


def rig(made: Study, engine: Engine | None = None) -> ServedRig:
    engine = engine or OpenvinoEngine()
    return ServedRig(made, engine, lambda num_gpus: open_meter(made, num_gpus), Store(Path(made.results_dir)))


def assert_starts_by_hand(script: Path) -> None:
    """The script brings up a server that generates, without anything of ours in its environment."""
    port = free_port("127.0.0.1")
    plain = {"PATH": os.environ["PATH"], "SERVE_PORT": str(port)}
    with subprocess.Popen([str(script)], env=plain, start_new_session=True) as server:
        try:
            body = {"model": "tiny-llama", "prompt": "a", "max_tokens": 2}
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(*FAILURES):
                    assert as_object(post(f"http://127.0.0.1:{port}/v1/completions", body, 10))["choices"]
                    return
                time.sleep(0.1)
            pytest.fail("the script started no server")
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def test_all_starts_of_an_engine_share_a_folder_that_says_what_it_is(tmp_path: Path) -> None:
    made = study(tmp_path)
    served, config = rig(made), build_space(made).configs[0]
    row_ids, argv = [], list[list[str]]()
    for trial in ("first", "second"):
        with served.start(config, trial, lambda _: None) as session:
            row_ids += [row.row_id for row in session.measure(POINT, lambda _: None)]
            argv.append(list(session.start.argv))
    (folder,) = [path for path in (tmp_path / "engines").iterdir() if (path / "meta.json").is_file()]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["config"] == config.requested()
    assert meta["engine_version"] == served.engine_version
    assert meta["model"]["name"] == "tiny-llama"
    assert (meta["weights"], meta["model"]["checkpoint_hash"]) == ("random", None)
    starts = [json.loads((folder / "starts" / trial / "start.json").read_text()) for trial in ("first", "second")]
    assert [start["row_ids"] for start in starts] == [[row_id] for row_id in row_ids]
    assert all((folder / "starts" / trial / "engine.log").is_file() for trial in ("first", "second"))
    assert os.access(folder / "serve.sh", os.X_OK)
    assert_starts_by_hand(folder / "serve.sh")
    assert json.loads((folder / "argv.json").read_text()) == argv[0] == argv[1]


def test_a_start_that_fails_leaves_its_log_and_no_rows(tmp_path: Path) -> None:
    made = study(tmp_path, "engine.ready_timeout_s=0.05")
    with (
        pytest.raises(TrialError) as caught,
        rig(made).start(build_space(made).configs[0], "trial", lambda _: None),
    ):
        pass
    assert caught.value.start is not None
    (log,) = (tmp_path / "engines").glob("*/starts/trial/engine.log")
    said = json.loads((log.parent / "start.json").read_text())
    assert (said["row_ids"], said["start_s"]) == ([], None)
    assert said["failure"].startswith("no generation within")


def test_what_the_engine_itself_refuses_is_not_started(tmp_path: Path) -> None:
    made = study(tmp_path)
    phases = list[str]()
    with (
        pytest.raises(TrialError, match=r"preflight, before any start: .*'model'.* of tiny-llama: no") as caught,
        rig(made, RefusingEngine()).start(build_space(made).configs[0], "trial", phases.append),
    ):
        pass
    assert caught.value.status is TrialStatus.START_FAILED
    assert "starting engine" not in phases


def test_a_version_that_the_runtime_does_not_have_is_refused(tmp_path: Path) -> None:
    made = study(tmp_path)
    other = dataclasses.replace(made, engine=dataclasses.replace(made.engine, version="1.2.0"))
    with pytest.raises(ConfigError, match=r"engine\.version=1\.2\.0: the runtime has .*; leave engine\.version=null"):
        rig(other)
    assert rig(made).study.engine.version == rig(made).engine_version


def test_an_untested_version_is_said_and_marked(tmp_path: Path) -> None:
    made = study(tmp_path)
    served = rig(made, UntestedEngine())
    assert "untested" in served.describe()[0]
    with served.start(build_space(made).configs[0], "trial", lambda _: None) as session:
        (row,) = session.measure(POINT, lambda _: None)
    assert "engine_untested" in row.warnings
