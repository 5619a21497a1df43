"""A stand-in `docker`: `python stand_in_docker.py SOCKET ARGS...`, the client of StandInDaemon, by path.

It knows the options that Docker's command line documents and refuses any other in its words (28.2). A container is no
child of it: the daemon starts it, so it survives the death of this process. Needs the standard library only.
"""

import csv
import json
import os
import signal
import socket
import sys

VALUED = {
    "--pull", "--network", "--ipc", "--ulimit", "--log-driver", "--name", "--user", "--userns", "--gpus", "--mount",
    "--env", "--entrypoint", "--workdir", "--volume", "--label", "--shm-size", "--cap-add", "--runtime",
}  # fmt: skip
PLAIN = {"--rm", "--init", "--interactive", "--tty", "--detach", "--privileged"}
HELP = "\nRun 'docker run --help' for more information"


def main() -> int:
    path, *args = sys.argv[1:]
    match args:
        case ["run", *rest]:
            return run(path, rest)
        case ["rm", "--force", "--volumes", name]:
            return told(request(path, {"do": "rm", "name": name}))
        case ["inspect", "--type", "container", "--format", "{{.State.Pid}}", name]:
            return told(request(path, {"do": "pid", "name": name}))
        case ["image", "inspect", "--format", "{{.Id}}", name]:
            return told(request(path, {"do": "image", "name": name}))
        case ["info", "--format", template]:
            return told(request(path, {"do": "info", "template": template}))
    print(f"docker: '{' '.join(args)}' is no docker command that this stand-in knows", file=sys.stderr)
    return 1


def told(answer: dict[str, object]) -> int:
    sys.stdout.write(str(answer.get("out", "")))
    sys.stderr.write(str(answer.get("err", "")))
    return int(str(answer["status"]))


def request(path: str, body: dict[str, object], fds: tuple[int, ...] = ()) -> dict[str, object]:
    """Ask the daemon; while it keeps us waiting, signals are passed on to the container."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(path)
    except PermissionError:
        return failed(f"permission denied while trying to connect to the Docker daemon socket at unix://{path}")
    except OSError:
        return failed(f"Cannot connect to the Docker daemon at unix://{path}. Is the docker daemon running?")
    if body["do"] == "run":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: request(path, {"do": "kill", "name": body["name"], "n": number}))
    socket.send_fds(link, [json.dumps(body).encode() + b"\n"], list(fds))
    with link.makefile() as lines:
        answer: dict[str, object] = json.loads(lines.readline() or '{"status": 1, "err": "unexpected EOF"}')
    return answer


def failed(said: str) -> dict[str, object]:
    return {"status": 1, "out": "null\n", "err": f"{said}\n"}


def run(path: str, args: list[str]) -> int:
    found: dict[str, list[str]] = {}
    while args and args[0].startswith("-"):
        option = args.pop(0)
        if option not in VALUED | PLAIN:
            print(
                f"unknown flag: {option}\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n{HELP}",
                file=sys.stderr,
            )
            return 125
        found.setdefault(option, []).append(args.pop(0) if option in VALUED else "")
    image, *argv = args
    body = {
        "do": "run", "name": found["--name"][0], "image": image, "argv": argv,
        "env": dict(pair.partition("=")[::2] for pair in found.get("--env", [])),
        "mounts": [mount(text) for text in found.get("--mount", [])],
        "gpus": [uuid for text in found.get("--gpus", []) for uuid in gpu_request(text)],
        "init": "--init" in found, "pull": found.get("--pull", ["missing"])[0], "given": found,
    }  # fmt: skip
    stdin = 0 if "--interactive" in found else os.open(os.devnull, os.O_RDONLY)
    answer = request(path, body, (stdin, 1, 2))
    if answer.get("err"):
        print(f"docker: {str(answer['err']).strip()}\n{HELP}", file=sys.stderr)
        return 125 if answer["status"] == 1 else int(str(answer["status"]))
    return int(str(answer["status"]))


def gpu_request(text: str) -> list[str]:
    """UUIDs of --gpus: one line of CSV, of which a device field may be quoted for its commas."""
    (fields,) = csv.reader([text])
    return (
        ["all"]
        if fields == ["all"]
        else [part for field in fields for part in field.removeprefix("device=").split(",")]
    )


def mount(text: str) -> dict[str, str]:
    (fields,) = csv.reader([text])
    return dict(field.partition("=")[::2] for field in fields)


if __name__ == "__main__":
    sys.exit(main())
