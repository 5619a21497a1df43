import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.process import EngineProcess
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import ALL_GPUS, Launch, Mount
from pipeline.errors import ConfigError, EngineError
from tests.engine.running import PLAIN_REQUEST, READY_S, rendered_stand_in
from tests.engine.runtime.machine import Machine, machine


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("m"), monkeypatch) as found:
        yield found


def values(argv: tuple[str, ...], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(argv) if name == option]


def container(host: Machine, name: str) -> Path:
    folder = host.folder / "containers" / name
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "rc").write_text('exec "$@"\n')
    os.utime(folder / "etc" / "rc", (1_600_000_000, 1_600_000_000))
    return folder


@pytest.mark.parametrize("image", [None, ""])
def test_no_image_is_refused_with_the_way_to_one(host: Machine, image: str | None) -> None:
    with pytest.raises(ConfigError, match=r"engine\.image=.*enroot import --output"):
        find_runtime(host.settings("enroot", image=image))


def test_a_file_is_started_with_changes_in_memory_and_a_container_as_it_was_made(host: Machine) -> None:
    container(host, "trtllm")
    launch = Launch(argv=("trtllm-serve", "a b"), name="n")
    file = find_runtime(host.settings("enroot")).command(launch)
    assert file.argv[:3] == ("enroot", "start", "--rw")
    assert file.argv[-3:] == (str(host.sqsh), "trtllm-serve", "a b")
    made = find_runtime(host.settings("enroot", image="trtllm")).command(launch)
    assert "--rw" not in made.argv
    assert made.argv[-3:] == ("trtllm", "trtllm-serve", "a b")
    assert made.cleanup == ()


def test_the_path_of_a_file_is_found_from_elsewhere(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(host.folder)
    argv = find_runtime(host.settings("enroot", image="trtllm.sqsh")).command(Launch(argv=("x",), name="n")).argv
    assert argv[-2] == str(host.sqsh)


@pytest.mark.parametrize(
    ("gpus", "visible", "cuda"),
    [
        ((), "void", []),
        (ALL_GPUS, "all", []),
        (("GPU-1", "GPU-3"), "GPU-1,GPU-3", ["CUDA_VISIBLE_DEVICES=GPU-1,GPU-3"]),
    ],
)
def test_gpus_are_given_by_uuid_to_the_hook_and_to_cuda(
    host: Machine, gpus: tuple[str, ...], visible: str, cuda: list[str]
) -> None:
    pin = {"CUDA_VISIBLE_DEVICES": "5"}
    command = find_runtime(host.settings("enroot")).command(Launch(argv=("x",), name="n", gpus=gpus, pin=pin))
    env = values(command.argv, "--env")
    assert command.env["NVIDIA_VISIBLE_DEVICES"] == visible
    assert f"NVIDIA_VISIBLE_DEVICES={visible}" in env
    assert [pair for pair in env if pair.startswith("CUDA_VISIBLE_DEVICES")] == cuda


def test_mounts_are_bound_under_their_own_path(host: Machine) -> None:
    (host.folder / "model").mkdir()
    (host.folder / "out").mkdir()
    (host.folder / "file").write_text("")
    mounts = (
        Mount(path=host.folder / "model"), Mount(path=host.folder / "out", is_writable=True),
        Mount(path=host.folder / "file"),
    )  # fmt: skip
    argv = find_runtime(host.settings("enroot")).command(Launch(argv=("x",), name="n", mounts=mounts)).argv
    folder = host.folder
    assert set(values(argv, "--mount")) >= {
        f"{folder}/model:{folder}/model:none:x-create=dir,rbind,ro,nosuid,nodev",
        f"{folder}/out:{folder}/out:none:x-create=dir,rbind,rw,nosuid,nodev",
        f"{folder}/file:{folder}/file:none:x-create=file,rbind,ro,nosuid,nodev",
    }


@pytest.mark.parametrize("name", ["a b", "a:b", "a\\b"])
def test_a_path_that_enroot_cannot_take_is_refused(host: Machine, name: str) -> None:
    (host.folder / name).mkdir()
    with pytest.raises(ConfigError, match="use another folder"):
        find_runtime(host.settings("enroot")).command(
            Launch(argv=("x",), name="n", mounts=(Mount(path=host.folder / name),))
        )


def test_a_value_of_two_lines_is_refused_by_name(host: Machine) -> None:
    with pytest.raises(ConfigError, match=r"engine\.env\.NOTE='a\\nb'"):
        find_runtime(host.settings("enroot")).command(Launch(argv=("x",), name="n", env={"NOTE": "a\nb"}))


def test_an_image_is_known_by_when_it_was_made_wherever_it_lies(host: Machine) -> None:
    found = find_runtime(host.settings("enroot")).image_id()
    assert found == f"trtllm.sqsh of 1700000000, {host.sqsh.stat().st_size} bytes"
    copy = host.folder / "copy" / "trtllm.sqsh"
    copy.parent.mkdir()
    copy.write_bytes(host.sqsh.read_bytes())
    assert find_runtime(host.settings("enroot", image=str(copy))).image_id() == found
    container(host, "made")
    assert find_runtime(host.settings("enroot", image="made")).image_id() == "made of 1600000000"
    assert find_runtime(host.settings("enroot", image="none")).image_id() == "none"


def test_what_is_missing_is_said_with_the_fix(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def why_not(**changes: object) -> str:
        return find_runtime(host.settings("enroot", **changes)).why_not() or ""

    assert why_not() == ""
    assert "no such file; get an image by `enroot import" in why_not(image="/nowhere/x.sqsh")
    plain = host.folder / "plain.sqsh"
    plain.write_text("text")
    assert "no image of Enroot" in why_not(image=str(plain))
    assert "`enroot create --name gone trtllm.sqsh`" in why_not(image="gone")
    container(host, "there")
    assert why_not(image="there") == ""
    monkeypatch.setenv("PATH", str(host.tools))
    (host.tools / "squashfuse").unlink()
    assert "needs squashfuse; install" in why_not()
    assert "set engine.image=NAME" in why_not()
    assert why_not(image="there") == "", "a container needs no tool to mount it"
    (host.tools / "nvidia-container-cli").unlink()
    assert "libnvidia-container" in why_not(image="there")
    assert why_not(image="there", name="openvino") == "", "it needs no GPU"


def test_where_containers_are_follows_enroots_variables(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    container(host, "here")
    runtime = find_runtime(host.settings("enroot", image="here"))
    assert runtime.why_not() is None
    monkeypatch.delenv("ENROOT_DATA_PATH")
    monkeypatch.setenv("XDG_DATA_HOME", str(host.folder / "share"))
    assert runtime.why_not() is not None
    (host.folder / "share" / "enroot" / "here").mkdir(parents=True)
    assert runtime.why_not() is None


def test_a_gpu_that_is_not_there_ends_the_start_with_its_words(host: Machine) -> None:
    process = EngineProcess(rendered_stand_in(), host.folder / "run", host.settings("enroot"), {}, {}, gpus=("GPU-9",))
    with process as engine, pytest.raises(EngineError, match=r"ended with status 1$") as ended:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert "GPU-9: unknown device" in ended.value.log_tail[-1]
