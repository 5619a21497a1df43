"""A stand-in `enroot`: `python stand_in_enroot.py HOST ARGS...`, by path; knows `start` and becomes the command.

HOST is a folder of this machine whose files a container sees only if they are mounted. An option that Enroot does not
know prints its usage and ends with status 0, as the real one does (enroot.in).
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.engine.runtime.sight import unseen

OPTION = {"-m": "--mount", "-e": "--env", "-c": "--conf"}


def fail(said: str) -> None:
    print(f"[ERROR] {said}", file=sys.stderr)
    sys.exit(1)


def usage() -> None:
    print("Usage: enroot start [options] [--] NAME|IMAGE [COMMAND] [ARG...]")
    sys.exit(0)


def main() -> None:
    host, verb, *args = sys.argv[1:]
    if verb != "start":
        usage()
    found, image, argv = parsed(args)
    check_image(image)
    targets = [target(mount) for mount in found["--mount"]]
    env = {"PATH": os.environ["PATH"], "NVIDIA_VISIBLE_DEVICES": "all"}
    for pair in found["--env"]:
        if not re.match(r"[A-Za-z_]\w*(=|$)", pair):
            fail(f"Invalid argument: {pair}")
        name, _, env[name] = pair.partition("=")
    add_gpus(os.environ.get("NVIDIA_VISIBLE_DEVICES", env["NVIDIA_VISIBLE_DEVICES"]))
    missing = unseen(Path(host), [*argv, *found["--env"]], targets)
    if missing:
        fail(f"the container does not see {missing}")
    print("=============\n== NVIDIA ==\n=============", flush=True)
    os.chdir(env["HOME"])
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except OSError:
        sys.exit(127)


def parsed(args: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    """Values by option, the image, and the command."""
    found: dict[str, list[str]] = {"--mount": [], "--env": [], "--conf": []}
    while args and args[0].startswith("-"):
        option = OPTION.get(args[0], args[0])
        args.pop(0)
        if option in found:
            found[option].append(args.pop(0))
        elif option not in {"--rw", "--root"}:
            usage()
    return found, args[0], args[1:]


def check_image(image: str) -> None:
    container = Path(os.environ["ENROOT_DATA_PATH"], image)
    if Path(image).is_file():
        if Path(image).read_bytes()[:4] != b"hsqs":
            fail(f"Invalid argument: {image}")
    elif "/" in image:
        fail(f"Invalid argument: {image}")
    elif not container.is_dir():
        fail(f"No such file or directory: {container}")


def target(mount: str) -> str:
    """Where a mount shows in the container."""
    if not re.fullmatch(r"\S+:\S+", mount):
        fail(f"Invalid argument: {mount}")
    source, shown, kind, options = mount.split(":")
    if not Path(source).exists():
        fail(f"failed to mount: {source} at {shown}: No such file or directory")
    if kind != "none" or "rbind" not in options.split(","):
        fail(f"invalid fstab entry: {mount!r}")
    return shown


def add_gpus(asked: str) -> None:
    """As the hook 98-nvidia.sh does, with three GPUs here."""
    for uuid in [] if asked in {"all", "void"} else asked.split(","):
        if uuid not in {"GPU-1", "GPU-2", "GPU-3"}:
            fail(f"nvidia-container-cli: device error: {uuid}: unknown device")


if __name__ == "__main__":
    main()
