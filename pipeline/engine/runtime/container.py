"""What is the same in every container: its home, its variables, and which folders of this machine it sees.

The home is a folder of this machine, one per image, shared by all starts: what the engine compiles on its first start
(Triton, FlashInfer, DeepGEMM) is there on the next, and nothing of the user's own home (packages for Python, settings)
reaches the engine. The image's own entry point runs, for NVIDIA's set up the driver's compatibility libraries; what
it prints lands in the log.
"""

import getpass
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.engine.runtime.protocol import Launch, Mount
from pipeline.errors import ConfigError
from pipeline.study import EngineSettings

HOMES = Path("tpw") / "container-home"
"""Below the user's cache folder."""


class Container:
    """The part of a Runtime that is the same in every kind of container."""

    def __init__(self, settings: EngineSettings, image: str) -> None:
        """Remember what is run.

        Args:
            settings: `python` is a path or name within the image.
            image: What the image is called.
        """
        self._image = image
        self._python = settings.python
        self._needs_gpu = settings.name != "openvino"
        self._home = home_of(image)

    @property
    def bin_prefix(self) -> str:
        """Folder of engine.python within the image; nothing if the image's PATH finds what belongs to it.

        That is so for a name, and for a distribution's own interpreter, whose packages' scripts lie in /usr/local/bin.
        """
        folder = self._python.rpartition("/")[0]
        return f"{folder}/" if folder not in {"", "/usr/bin", "/bin"} else ""

    @property
    def environ(self) -> Mapping[str, str]:
        """What we set; what the image sets is unknown."""
        return environ_of(self._home)

    def program(self, name: str) -> str:
        """What lies beside the interpreter, or the PATH of the image finds."""
        return self._python if name == "python" else f"{self.bin_prefix}{name}"


def home_of(image: str) -> Path:
    """Home of every container of an image; made where it is first needed."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache).absolute() / HOMES / hashlib.sha256(image.encode()).hexdigest()[:16]


def environ_of(home: Path) -> dict[str, str]:
    """Variables of every container. A user id without a name, as in containers, needs USER."""
    user = user_name()
    return {
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        # /tmp ends with the container, and TMPDIR elsewhere would make paths too long for sockets.
        "TORCHINDUCTOR_CACHE_DIR": str(home / ".cache" / "torchinductor"),
    }


def gpu_environ(gpus: tuple[str, ...]) -> dict[str, str]:
    """Variables that ask NVIDIA's container toolkit for these GPUs and no others, whatever the image says.

    Images say NVIDIA_VISIBLE_DEVICES=all, which is granted where NVIDIA's is the default runtime. Source: the
    toolkit's documentation, "Environment variables (OCI spec)"; `void` is none.
    """
    if not gpus:
        return {"NVIDIA_VISIBLE_DEVICES": "void"}
    return {
        "NVIDIA_VISIBLE_DEVICES": ",".join(gpus),
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # that of the meter
    }


def full_environ(launch: Launch, home: Path) -> dict[str, str]:
    """Everything that a container's command gets besides what its image sets."""
    return environ_of(home) | gpu_environ(launch.gpus) | dict(launch.env)


def all_mounts(launch: Launch, home: Path) -> tuple[Mount, ...]:
    """Home, and what the launch asks for and exists; outer folders first, none within another of the same rights.

    Raises:
        ConfigError: If a folder to write to is missing and cannot be made.
    """
    wanted: dict[Path, Mount] = {}
    for mount in (Mount(path=home, is_writable=True), *(found for asked in launch.mounts for found in _seen(asked))):
        if mount.is_writable:
            _make(mount.path)
        if mount.path.exists() and not (mount.path in wanted and wanted[mount.path].is_writable):
            wanted[mount.path] = mount
    kept: dict[Path, Mount] = {}
    for path in sorted(wanted):
        outer = next((kept[parent] for parent in path.parents if parent in kept), None)
        if outer is None or outer.is_writable != wanted[path].is_writable:
            kept[path] = wanted[path]
    return tuple(kept.values())


def _make(folder: Path) -> None:
    """Make a folder, which would otherwise be root's or missing.

    Raises:
        ConfigError: If that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return  # a file to write to
    except OSError as error:
        raise ConfigError(
            f"{folder}: the container needs this folder to write to, and it cannot be made ({error.strerror}); set "
            "XDG_CACHE_HOME or the variable that names it to a folder of yours"
        ) from error


def _seen(mount: Mount) -> Iterator[Mount]:
    """A mount, and for one to read what the symbolic links in it lead to.

    A snapshot in the Hugging Face cache is links into its repository's blobs, so the repository is mounted.
    """
    path = mount.path.absolute()
    if mount.is_writable:
        yield Mount(path=path, is_writable=True)
        return
    folder = path.parent.parent if path.parent.name == "snapshots" else path
    yield Mount(path=folder)
    for link in (path, *(path.iterdir() if path.is_dir() else ())):
        yield from (Mount(path=place) for place in _places(link) if not place.is_relative_to(folder))


def _places(link: Path) -> Iterable[Path]:
    """Where a chain of symbolic links leads, hop by hop."""
    seen = {link}
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        if link in seen:
            return
        seen.add(link)
        yield link


def user_name() -> str:
    """Ours, or our number where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name here too
        return str(os.getuid())
