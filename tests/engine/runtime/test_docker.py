import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.process import EngineProcess
from pipeline.engine.protocol import Rendered
from pipeline.engine.runtime import docker
from pipeline.engine.runtime.ask import ask
from pipeline.engine.runtime.catalog import find_runtime
from pipeline.engine.runtime.protocol import ALL_GPUS, Launch, Mount
from pipeline.errors import ConfigError, EngineError
from tests.engine.running import PLAIN_REQUEST, READY_S, rendered_stand_in
from tests.engine.runtime.machine import DIGEST_IMAGE, Machine, executable, machine


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("m"), monkeypatch) as found:
        yield found


def options(host: Machine, launch: Launch) -> dict[str, list[str]]:
    """Values of `docker run` by option; the rest under IMAGE."""
    argv = find_runtime(host.settings("docker")).command(launch).argv
    assert argv[:2] == ("docker", "run")
    at = argv.index(DIGEST_IMAGE)
    found: dict[str, list[str]] = {"IMAGE": list(argv[at + 1 :])}
    for name, value in zip(argv[2:at], [*argv[3:at], ""], strict=True):
        if name.startswith("--"):
            found.setdefault(name, []).append("" if value.startswith("--") else value)
    return found


def until_dead(engine: EngineProcess) -> None:
    """Wait for its end."""
    while True:
        engine.check_alive()


@pytest.mark.parametrize(
    "image",
    [None, "", "nvcr.io/nvidia/tensorrt-llm/release:1.2.0", "a@sha256:12", f"@sha256:{'0' * 64}",
     f"a@sha256:{'0' * 65}", f"a b@sha256:{'0' * 64}", f"a@sha256:{'G' * 64}"],
)  # fmt: skip
def test_an_image_without_a_digest_is_refused_with_the_way_to_it(host: Machine, image: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        find_runtime(host.settings("docker", image=image))
    assert f"engine.image={image}:" in str(refused.value)
    assert "docker image inspect --format '{{index .RepoDigests 0}}' " in str(refused.value)


def test_the_refusal_of_a_tag_names_the_image(host: Machine) -> None:
    with pytest.raises(ConfigError, match=r"RepoDigests 0}}' nvcr\.io/x:1\.2`"):
        find_runtime(host.settings("docker", image="nvcr.io/x:1.2"))


def test_the_command_shares_network_and_memory_and_never_pulls(host: Machine) -> None:
    found = options(host, Launch(argv=("trtllm-serve", "a b"), name="tpw-1"))
    assert found["IMAGE"] == ["trtllm-serve", "a b"]
    assert found["--name"] == ["tpw-1"]
    assert found["--network"] == found["--ipc"] == ["host"]
    assert found["--ulimit"] == ["memlock=-1", "stack=67108864"]
    assert found["--pull"] == ["never"]
    assert "--rm" in found
    assert "--init" in found
    cleanup = find_runtime(host.settings("docker")).command(Launch(argv=(), name="tpw-1")).cleanup
    assert cleanup == ("docker", "rm", "--force", "--volumes", "tpw-1")


@pytest.mark.parametrize(
    ("gpus", "option", "visible"),
    [
        ((), None, "void"),
        (("GPU-1",), "device=GPU-1", "GPU-1"),
        (("GPU-1", "GPU-2"), '"device=GPU-1,GPU-2"', "GPU-1,GPU-2"),
        (ALL_GPUS, "all", "all"),
    ],
)
def test_gpus_are_given_by_uuid_and_no_others(
    host: Machine, gpus: tuple[str, ...], option: str | None, visible: str
) -> None:
    pin = {"CUDA_VISIBLE_DEVICES": "5"}
    found = options(host, Launch(argv=("x",), name="n", gpus=gpus, pin=pin))
    assert found.get("--gpus") == (None if option is None else [option])
    assert f"NVIDIA_VISIBLE_DEVICES={visible}" in found["--env"]
    assert not [pair for pair in found["--env"] if pair.startswith("CUDA_VISIBLE_DEVICES")], "numbers of this machine"


def test_files_that_it_writes_are_ours_in_a_home_of_the_image(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 99)
    monkeypatch.setenv("LOGNAME", "ada")
    found = options(host, Launch(argv=("x",), name="n"))
    assert found["--user"] == ["1234:99"]
    assert "--userns" not in found
    env = dict(pair.partition("=")[::2] for pair in found["--env"])
    home = Path(env["HOME"])
    assert (env["USER"], env["LOGNAME"]) == ("ada", "ada")
    assert home.is_dir()
    assert home.is_relative_to(host.folder / "cache" / "tpw")
    assert f"type=bind,source={home},target={home}" in found["--mount"]
    users = [text for text in found["--mount"] if "target=/etc/passwd" in text]
    assert users == [f"type=bind,source={home}/.passwd,target=/etc/passwd,readonly"]
    assert f"ada:x:1234:99::{home}:/bin/sh\n" in (home / ".passwd").read_text()
    other = find_runtime(host.settings("docker", image=f"other@sha256:{'1' * 64}"))
    assert other.environ["HOME"] != env["HOME"]


@pytest.mark.parametrize(("security", "user", "userns"), [("name=rootless", False, False), ("name=userns", True, True)])
def test_a_daemon_that_maps_users_is_met(host: Machine, security: str, user: bool, userns: bool) -> None:
    host.daemon.info["SecurityOptions"] = ["name=seccomp,profile=builtin", security]
    found = options(host, Launch(argv=("x",), name="n"))
    assert ("--user" in found, found.get("--userns") == ["host"]) == (user, userns)


def test_paths_with_commas_and_blanks_are_mounted(host: Machine) -> None:
    odd = host.folder / 'a, "b"'
    odd.mkdir()
    (odd / "file").write_text("content")
    read = "import sys; print(open(sys.argv[1] + '/file').read())"
    ask(host.settings("docker"), ("python", "-c", read, str(odd)), timeout_s=READY_S, mounts=[Mount(path=odd)])
    (run,) = host.daemon.runs
    assert {"type": "bind", "source": str(odd), "target": str(odd), "readonly": ""} in run["mounts"]


def test_a_daemon_that_is_down_or_not_ours_to_use_is_said(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = find_runtime(host.settings("docker"))
    assert runtime.why_not() is None
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert "DOCKER_HOST=tcp://elsewhere:2375" in (runtime.why_not() or "")
    monkeypatch.delenv("DOCKER_HOST")
    for said, fix in {
        "permission denied while trying to connect to the Docker daemon socket": "usermod -aG docker",
        "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?": "systemctl start docker",
        "something else": "`docker info` failed: something else",
    }.items():
        executable(host.tools / "docker", f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        assert fix in (runtime.why_not() or "")


def test_a_machine_without_nvidias_toolkit_is_said(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "TOOLKIT_HOOK", "no-such-hook")
    host.daemon.info["Runtimes"] = {"runc": {}}
    assert "nvidia-ctk runtime configure" in (find_runtime(host.settings("docker")).why_not() or "")
    assert find_runtime(host.settings("docker", name="openvino")).why_not() is None, "it needs no GPU"
    host.daemon.info["DiscoveredDevices"] = [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]
    assert find_runtime(host.settings("docker")).why_not() is None


def test_a_toolkit_without_a_registered_runtime_is_found(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    host.daemon.info["Runtimes"] = None
    monkeypatch.setattr(docker, "TOOLKIT_HOOK", "hook-of-this-test")
    executable(host.tools / "hook-of-this-test", "#!/bin/sh\n")
    assert find_runtime(host.settings("docker")).why_not() is None


def test_an_image_that_is_not_here_is_never_pulled(host: Machine) -> None:
    host.daemon.images.clear()
    settings = host.settings("docker")
    assert (find_runtime(settings).why_not() or "").endswith(
        f"is not on this machine; run `docker pull {DIGEST_IMAGE}`"
    )
    with pytest.raises(EngineError, match="docker pull"):
        ask(settings, ("python", "-c", "0"), timeout_s=READY_S)
    with (
        EngineProcess(rendered_stand_in(), host.folder / "run", settings, {}, {}) as engine,
        pytest.raises(EngineError, match=r"ended with status 125$") as ended,
    ):
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert any("No such image" in line for line in ended.value.log_tail)


def test_a_gpu_that_is_not_there_ends_the_start_with_dockers_words(host: Machine) -> None:
    process = EngineProcess(rendered_stand_in(), host.folder / "run", host.settings("docker"), {}, {}, gpus=("GPU-9",))
    with process as engine, pytest.raises(EngineError, match=r"ended with status 125$") as ended:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
    assert any("GPU-9: unknown device" in line for line in ended.value.log_tail)


def test_a_name_that_is_taken_is_not_ours(host: Machine) -> None:
    settings = host.settings("docker")
    with EngineProcess(rendered_stand_in(), host.folder / "a", settings, {}, {}) as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        (taken,) = host.daemon.names
        command = find_runtime(settings).command(Launch(argv=("true",), name=taken))
        refused = subprocess.run(command.argv, capture_output=True, text=True, check=False)
        assert refused.returncode == 125
        assert "already in use" in refused.stderr
        engine.wait_ready(PLAIN_REQUEST, READY_S)


def test_a_container_whose_client_was_killed_is_removed(host: Machine) -> None:
    settings = host.settings("docker")
    with EngineProcess(rendered_stand_in(), host.folder / "a", settings, {}, {}) as engine:
        engine.wait_ready(PLAIN_REQUEST, READY_S)
        (client,) = [pid for pid in engine.pids() if "stand_in_docker" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(client, 9)
        with pytest.raises(EngineError):
            until_dead(engine)
        assert host.daemon.names == []


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker here")
def test_dockers_own_command_line_takes_every_option(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("docker", path=os.pathsep.join(os.environ["PATH"].split(os.pathsep)[1:]))
    if real is None:
        pytest.skip("no docker here")
    launch = Launch(argv=("x",), name="n", env={"A": "b"}, gpus=("GPU-1", "GPU-2"), mounts=(Mount(path=host.folder),))
    argv = find_runtime(host.settings("docker")).command(launch).argv
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    said = subprocess.run([real, *argv[1:]], capture_output=True, text=True, check=False).stderr
    assert "Cannot connect to the Docker daemon" in said


def test_the_engine_sees_what_it_names_and_writes_to_its_own_folders_only(host: Machine) -> None:
    snapshot = host.folder / "hub" / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (host.folder / "secret").mkdir()
    run_dir = host.folder / "engines" / "e" / "trial"
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    rendered = Rendered(argv=("{python}", "-c", show, "{model}", "{engine_dir}"))
    places = {"model": str(snapshot), "unused": str(host.folder / "secret")}
    process = EngineProcess(
        rendered, run_dir, host.settings("docker"), places, {}, engine_dir=run_dir.parent,
        caches=(host.folder / "jit" / "triton",),
    )  # fmt: skip
    with process as engine, pytest.raises(EngineError):
        until_dead(engine)
    assert json.loads(engine.log_lines()[-1]) == [str(snapshot), str(run_dir.parent)]
    (run,) = host.daemon.runs
    seen = {mount["source"]: "readonly" in mount for mount in run["mounts"]}
    home = find_runtime(host.settings("docker")).environ["HOME"]
    folder = host.folder
    assert seen == {
        str(folder / "hub" / "models--a--b"): True, str(folder / "engines" / "e"): False,
        str(folder / "jit" / "triton"): False, home: False,
    }  # fmt: skip
