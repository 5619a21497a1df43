import getpass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.runtime.container import Container, all_mounts, environ_of, full_environ, home_of
from pipeline.engine.runtime.protocol import Launch, Mount
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings

NAMES = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)


def mounts(home: Path, *asked: Mount) -> dict[str, bool]:
    """Path -> whether writable, in order, without the home."""
    found = all_mounts(Launch(argv=(), name="n", mounts=asked), home)
    return {str(mount.path): mount.is_writable for mount in found if mount.path != home}


def snapshot(folder: Path) -> Path:
    """A model in the Hugging Face cache: links into blobs."""
    repo = folder / "hub" / "models--org--name"
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / "abc").write_text("{}")
    commit = repo / "snapshots" / "0123"
    commit.mkdir(parents=True)
    (commit / "config.json").symlink_to("../../blobs/abc")
    return commit


@pytest.mark.parametrize(
    ("python", "serve"),
    [
        ("python3", "trtllm-serve"),
        ("/usr/bin/python3", "trtllm-serve"),
        ("/opt/env/bin/python", "/opt/env/bin/trtllm-serve"),
    ],
)
def test_scripts_of_a_distributions_own_interpreter_are_found_by_the_images_path(python: str, serve: str) -> None:
    settings = EngineSettings(name="trtllm", runtime="docker", python=python, image="a", ready_timeout_s=1.0)
    container = Container(settings, "a")
    assert (container.program("python"), container.program("trtllm-serve")) == (python, serve)


def test_a_snapshot_comes_with_its_blobs(tmp_path: Path) -> None:
    commit = snapshot(tmp_path)
    assert mounts(tmp_path / "home", Mount(path=commit)) == {str(tmp_path / "hub" / "models--org--name"): False}


def test_links_out_of_a_folder_come_along_hop_by_hop(tmp_path: Path) -> None:
    commit = snapshot(tmp_path)
    disk, model = tmp_path / "disk", tmp_path / "model"
    disk.mkdir()
    model.mkdir()
    (disk / "weights").write_text("w")
    (tmp_path / "hub" / "models--org--name" / "blobs" / "far").symlink_to(disk / "weights")
    (commit / "weights").symlink_to("../../blobs/far")
    (model / "weights").symlink_to(commit / "weights")
    (model / "lost").symlink_to("nowhere")
    (model / "loop").symlink_to("loop")
    found = mounts(tmp_path / "home", Mount(path=model))
    assert set(found) == {
        str(model), str(commit / "weights"), str(tmp_path / "hub/models--org--name/blobs/far"), str(disk / "weights"),
    }  # fmt: skip
    assert not any(found.values())


def test_what_is_missing_is_left_out_but_folders_to_write_to_are_made(tmp_path: Path) -> None:
    found = mounts(tmp_path / "home", Mount(path=tmp_path / "no"), Mount(path=tmp_path / "x" / "y", is_writable=True))
    assert found == {str(tmp_path / "x" / "y"): True}
    assert (tmp_path / "x" / "y").is_dir()
    assert not (tmp_path / "no").exists()
    assert (tmp_path / "home").is_dir()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/sub: the container needs .* \(Not a directory\); set XDG_CACHE_HOME"):
        mounts(tmp_path / "file" / "sub")


@given(asked=st.lists(st.tuples(NAMES, st.booleans()), max_size=6))
def test_every_path_asked_for_is_seen_with_its_rights(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[list[str], bool]]
) -> None:
    root = tmp_path_factory.getbasetemp() / "nested"
    for parts, _ in asked:
        root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
    wanted = [Mount(path=root.joinpath(*parts), is_writable=writable) for parts, writable in asked]
    found = mounts(root / "home", *wanted)
    for mount in wanted:
        covering = next(path for path in (mount.path, *mount.path.parents) if str(path) in found)
        # One path asked for twice may be written to; a folder to read within one to write stays as asked.
        rights = any(m.is_writable for m in wanted if m.path == mount.path)
        assert found[str(covering)] == rights
    assert list(found) == sorted(found, key=Path)


def test_a_home_belongs_to_an_image_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home_of("a") == home_of("a")
    assert home_of("a") != home_of("b")
    assert home_of("a").is_relative_to(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "u"))
    assert home_of("a").is_relative_to(tmp_path / "u" / ".cache")


def test_what_the_launch_says_comes_last(tmp_path: Path) -> None:
    launch = Launch(argv=(), name="n", env={"HOME": "/mine", "NVIDIA_DRIVER_CAPABILITIES": "all"}, gpus=("GPU-1",))
    env = full_environ(launch, tmp_path)
    assert (env["HOME"], env["NVIDIA_DRIVER_CAPABILITIES"]) == ("/mine", "all")


def test_a_user_without_a_name_has_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert environ_of(tmp_path)["USER"].isdecimal()
