"""engines/<engine_id>/: what one engine is, so that it can be started by hand, and what became of its starts.

TensorRT-LLM compiles no engine file any more: what defines one is its YAML, command line, environment, software and
GPU, and what it leaves behind is the choice of kernels in its autotuner's cache. So that is what the folder holds.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.protocol import Rendered
from pipeline.engine.script import assignments, script, variable, words
from pipeline.engine_config import content_hash

SCRIPT = "serve.sh"


def engine_id(
    rendered: Rendered,
    models: Mapping[str, str | None],
    engine_version: str | None,
    image: str | None,
    gpu_name: str | None,
) -> str:
    """Identity of an engine: bytes, models, software and kind of GPU, which its autotuner's cache holds for."""
    return content_hash([rendered.rendered_hash, dict(models), engine_version, image, gpu_name])


def write_definition(
    folder: Path,
    rendered: Rendered,
    meta: Mapping[str, Any],
    *,
    values: Mapping[str, str | None] | None = None,
    wanted: Mapping[str, str] | None = None,
    comments: Sequence[str] = (),
) -> None:
    """Write the engine's files, argv.json, env.json, meta.json and serve.sh; equal input, equal bytes.

    Args:
        folder: Made if missing; nothing in it is deleted.
        rendered: Files, argv and env with placeholders.
        meta: What else there is to know: model, checkpoint, versions, GPU.
        values: Placeholder -> its value here, for the script.
        wanted: Placeholder -> what the script asks the user to set it to, where it has no value here.
        comments: What the script says at its top.

    Raises:
        OSError: If the folder cannot be written.
    """
    files = {name: filled(content, values or {}) for name, content in rendered.files.items()} | {
        "argv.json": as_json(list(rendered.argv)),
        "env.json": as_json(dict(rendered.env)),
        "meta.json": as_json(dict(meta)),
        SCRIPT: start_script(rendered, values or {}, wanted or {}, comments),
    }
    for name, content in files.items():
        write_whole(folder / name, content)
    (folder / SCRIPT).chmod(0o755)


def start_script(
    rendered: Rendered,
    values: Mapping[str, str | None],
    wanted: Mapping[str, str],
    comments: Sequence[str] = (),
    *,
    first: Sequence[str] = (),
) -> str:
    """The script that starts what was rendered from the folder that it lies in.

    Args:
        rendered: Files, argv and env with placeholders.
        values: Placeholder -> its value here.
        wanted: Placeholder -> what the user is asked to set it to, where it has no value here.
        comments: What is said at its top.
        first: Commands that come before all others.
    """
    asked = [name for name in wanted if values.get(name) is None]
    commands = _filling(rendered.files, start_commands(rendered), asked)
    return script("\n".join([*first, commands]), comments, values, wanted)


def start_commands(rendered: Rendered) -> str:
    """What that script ends with; several servers, or machines, take more than a command line."""
    command = " ".join(["exec env", *assignments(rendered.env), words(rendered.argv)])
    return rendered.files.get(SCRIPT, command).rstrip("\n")


def _filling(files: Mapping[str, str], commands: str, asked: Sequence[str]) -> str:
    """The commands, working on copies of the files that want what the user is asked for, which they fill in first."""
    lines = []
    for name, content in sorted(files.items()):
        wants = [each for each in asked if "{" + each + "}" in content] if name != SCRIPT else []
        if wants:
            copy = f"{Path(name).stem}.filled{Path(name).suffix}"
            lines.append(f'text=$(cat "${{HERE}}/{name}")')
            lines += [f'text="${{text//"{{{each}}}"/"${{{variable(each)}}}"}}"' for each in wants]
            lines.append(f"""printf '%s\\n' "${{text}}" > "${{HERE}}/{copy}\"""")
            commands = commands.replace("${HERE}/" + name, "${HERE}/" + copy)
    return "\n".join([*lines, commands])


def write_start(folder: Path, facts: Mapping[str, Any], row_ids: Sequence[str]) -> None:
    """Write start.json: when and on what the engine was started, and the rows that were measured on it.

    Raises:
        OSError: If the folder cannot be written.
    """
    write_whole(folder / "start.json", as_json({**facts, "row_ids": list(row_ids)}))


def write_whole(path: Path, content: str) -> None:
    """Write a file whole or not at all; one that holds this already is left alone.

    Raises:
        OSError: If it cannot be written.
    """
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)


def filled(text: str, values: Mapping[str, str | None]) -> str:
    """A text with the placeholders filled in whose values are known."""
    for name, value in values.items():
        text = text if value is None else text.replace("{" + name + "}", value)
    return text


def as_json(value: Any) -> str:
    """JSON for people: sorted, one entry a line."""
    return json.dumps(value, indent=1, sort_keys=True, default=str) + "\n"
