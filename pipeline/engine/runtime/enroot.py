"""The engine's software in an Enroot image (a .sqsh file) or container, with libnvidia-container.

Source: NVIDIA/enroot, doc/cmd/start.md, doc/cmd/import.md, doc/image-format.md, src/runtime.sh, bin/enroot-mount.c,
conf/hooks/98-nvidia.sh.
A container has no process namespace: its processes are plain children of the command, and end with it.
"""

import os
import re
import shutil
import struct
from pathlib import Path

from pipeline.engine.runtime.container import Container, all_mounts, full_environ
from pipeline.engine.runtime.protocol import ALL_GPUS, Command, Launch, Mount
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings

SQUASHFS_MAGIC = b"hsqs"
"""Linux: Documentation/filesystems/squashfs.rst. Four bytes further on is the time of making, in seconds."""

TO_START_A_FILE = ("unsquashfs", "squashfuse", "fuse-overlayfs")
"""Tools without which Enroot starts containers only, not images. Source: doc/cmd/start.md, src/runtime.sh."""

HOW_TO_IMPORT = "`enroot import --output trtllm.sqsh 'docker://nvcr.io#nvidia/tensorrt-llm/release:TAG'`"


class EnrootRuntime(Container):
    """Containers of the user's own; satisfies the Runtime protocol."""

    name = "enroot"

    def __init__(self, settings: EngineSettings) -> None:
        """Find the image.

        Raises:
            ConfigError: If none is named.
        """
        if not settings.image:
            raise ConfigError(
                "engine.image=null: engine.runtime=enroot takes an image file or the name of a container; get one by "
                f"{HOW_TO_IMPORT} and set engine.image=trtllm.sqsh"
            )
        self._given = settings.image
        self._is_file = "/" in settings.image or settings.image.endswith(".sqsh")
        super().__init__(
            settings, str(Path(settings.image).expanduser().absolute()) if self._is_file else settings.image
        )

    def image_id(self) -> str | None:
        """Name and time of making: an image is tens of gigabytes, too much to hash at every start.

        The time is in the image, so a copy has the same; that of a container is when its image was imported.
        """
        path = Path(self._image) if self._is_file else _container(self._image) / "etc" / "rc"
        try:
            if not self._is_file:
                return f"{self._image} of {path.stat().st_mtime:.0f}"
            with path.open("rb") as file:
                made_s = struct.unpack_from("<I", file.read(12), 8)[0]
            return f"{path.name} of {made_s}, {path.stat().st_size} bytes"
        except (OSError, struct.error):
            return self._image

    def why_not(self) -> str | None:
        """Whether Enroot, NVIDIA's tool and the image are here."""
        if shutil.which("enroot") is None:
            return (
                "engine.runtime=enroot: there is no enroot command here; install NVIDIA Enroot "
                "(github.com/NVIDIA/enroot), or set engine.runtime to local or docker"
            )
        if self._needs_gpu and shutil.which("nvidia-container-cli") is None:
            return (
                "engine.runtime=enroot: there is no nvidia-container-cli here, which gives GPUs to a container; "
                "install libnvidia-container-tools (github.com/NVIDIA/libnvidia-container)"
            )
        return self._why_no_file() if self._is_file else self._why_no_container()

    def _why_no_file(self) -> str | None:
        path = Path(self._image)
        if not path.is_file():
            return f"engine.image={self._given}: there is no such file; get an image by {HOW_TO_IMPORT}"
        try:
            with path.open("rb") as file:
                is_image = file.read(4) == SQUASHFS_MAGIC
        except OSError as error:
            return f"engine.image={self._given}: cannot be read ({error.strerror}); make it readable"
        if not is_image:
            return f"engine.image={self._given}: is no image of Enroot (squashfs); get one by {HOW_TO_IMPORT}"
        missing = [tool for tool in TO_START_A_FILE if shutil.which(tool) is None]
        if missing:
            return (
                f"engine.image={self._given}: to start an image file Enroot needs {', '.join(missing)}; install them "
                f"(squashfs-tools, squashfuse, fuse-overlayfs), or `enroot create --name NAME {self._given}` and set "
                "engine.image=NAME"
            )
        return None

    def _why_no_container(self) -> str | None:
        if _container(self._image).is_dir():
            return None
        return (
            f"engine.image={self._given}: there is no container of that name (`enroot list` shows them); make it by "
            f"{HOW_TO_IMPORT} and `enroot create --name {self._given} trtllm.sqsh`, or give a .sqsh file"
        )

    def command(self, launch: Launch) -> Command:
        """`enroot start`; what it changes within the image goes with it.

        Raises:
            ConfigError: If a path or variable cannot be told to Enroot.
        """
        env = full_environ(launch, self._home)
        if launch.gpus not in {(), ALL_GPUS}:
            # /dev of this machine shows every GPU unless the administrator restricts it, so CUDA is told too.
            env |= {"CUDA_VISIBLE_DEVICES": ",".join(launch.gpus)}
        # Changes to an image file are kept in memory, those to a container would stay.
        argv = ["enroot", "start", *(("--rw",) if self._is_file else ())]
        for mount in all_mounts(launch, self._home):
            argv += ["--mount", _fstab(mount)]
        for name, value in env.items():
            if "\n" in value:
                raise ConfigError(f"engine.env.{name}={value!r}: engine.runtime=enroot takes one line; leave it out")
            argv += ["--env", f"{name}={value}"]
        # The hook that adds GPUs prefers the caller's environment to the container's.
        ours = {name: value for name, value in env.items() if name.startswith("NVIDIA_")}
        return Command(argv=(*argv, self._image, *launch.argv), env=ours)

    def pids(self, name: str) -> tuple[int, ...]:  # noqa: ARG002  # all descend from the command
        """None."""
        return ()


def _container(name: str) -> Path:
    """Where Enroot keeps a container: ENROOT_DATA_PATH, by default below XDG_DATA_HOME. Source: enroot.in."""
    data = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return Path(os.environ.get("ENROOT_DATA_PATH") or Path(data) / "enroot") / name


def _fstab(mount: Mount) -> str:
    """A bind mount in the fields of an fstab, with colons for blanks.

    Raises:
        ConfigError: If the path has a character that separates fields.
    """
    path = str(mount.path)
    if re.search(r"[\s:\\]", path):
        raise ConfigError(
            f"{path!r}: engine.runtime=enroot takes no path with a blank, a colon or a backslash; use another folder"
        )
    kind = "dir" if mount.path.is_dir() else "file"
    return f"{path}:{path}:none:x-create={kind},rbind,{'rw' if mount.is_writable else 'ro'},nosuid,nodev"
