"""Would `trtllm-serve` take this YAML? `python trtllm_llm_args.py MODEL < config.yaml`.

Runs in TensorRT-LLM's own environment, any release since 1.0, and goes the way that its server goes before it loads
anything: the file is merged key by key as `update_llm_args_with_extra_dict` does, then `TorchLlmArgs` is made of it
(tensorrt_llm/commands/serve.py, llmapi/llm_args.py). Neither reads weights: the model's folder is looked at only for
the config.json of a draft inside or beside it.

Prints one line `MARK {json}` whatever else the package prints:

    version    of TensorRT-LLM, or null
    problems   what it refuses, {"key", "value", "message"} each; a key is a dotted path of the file
    unknown    why it cannot be told here (no package, no driver library, no GPU to ask), or null
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import sys
from typing import Any

MARK = "LLM-ARGS-VERDICT"

REFUSALS = (ValueError, TypeError, AssertionError, KeyError, AttributeError, NotImplementedError, FileNotFoundError)
"""Errors of a config. Any other, such as the RuntimeError of torch.cuda without a GPU, is the machine's.
pydantic's ValidationError is a ValueError."""


def verdict(text: str, model: str) -> dict[str, Any]:
    """What TensorRT-LLM says about a file's text: version, problems and unknown, as above."""
    found: dict[str, Any] = {"version": None, "problems": [], "unknown": None}
    try:
        llm_args = importlib.import_module("tensorrt_llm.llmapi.llm_args")
        found["version"] = getattr(sys.modules["tensorrt_llm"], "__version__", None)
        accept = llm_args.TorchLlmArgs
        given = importlib.import_module("yaml").safe_load(text)
    except Exception as error:  # noqa: BLE001  # whatever keeps the package from being imported here
        found["unknown"] = _one_line(f"{type(error).__name__}: {error}")
        return found
    merge = getattr(llm_args, "update_llm_args_with_extra_dict", None)
    merged: dict[str, Any] = {}
    for key, value in given.items():
        try:
            merged |= merge({}, {key: copy.deepcopy(value)}) if merge is not None else {key: value}
        except REFUSALS as error:
            found["problems"] += _problems(error, given, (key,))
    if found["problems"]:
        return found
    try:
        _map_ranks(accept(model=model, **merged))
    except REFUSALS as error:
        found["problems"] = _problems(error, given, ())
    except Exception as error:  # noqa: BLE001  # of the machine, not of the config
        found["unknown"] = _one_line(f"{type(error).__name__}: {error}")
    return found


def _map_ranks(args: Any) -> None:
    """Lay the ranks out as the executor will: tensorrt_llm/mapping.py checks the degrees against each other."""
    with contextlib.suppress(AttributeError):  # where a release keeps them elsewhere
        layout = args.parallel_config
        if layout.gpus_per_node:  # 0 without a GPU, and ranks are divided by it
            layout.to_mapping()


def _problems(error: BaseException, given: Any, outer: tuple[str, ...]) -> list[dict[str, Any]]:
    """An error as problems: one per key for pydantic's, one without a key for a plain one."""
    if not hasattr(error, "errors"):
        value = given.get(outer[0]) if outer else None
        return [{"key": ".".join(outer), "value": value, "message": _one_line(str(error) or type(error).__name__)}]
    found: dict[str, dict[str, Any]] = {}
    for item in error.errors(include_url=False):
        key, value = _place(given, (*outer, *item["loc"]), is_missing=item["type"] == "missing")
        message = _one_line(item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, "))
        message = "there is no such key" if item["type"] == "extra_forbidden" else message
        if key in found:  # the variants of a union, each of which says why it does not fit
            message = f"{found[key]['message']}; or {message}" if message not in found[key]["message"] else ""
        if message:
            found[key] = {"key": key, "value": value, "message": message}
    return list(found.values())


def _place(given: Any, loc: tuple[Any, ...], *, is_missing: bool) -> tuple[str, Any]:
    """The dotted path in the file, and what is there. pydantic puts the names of union variants between the keys."""
    path, node = [], given
    for part in loc:
        is_there = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if is_there:
            path.append(str(part))
            node = node[part]
    if is_missing:
        return ".".join([*path, str(loc[-1])]), None
    return ".".join(path), node if path else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    answer = verdict(sys.stdin.read(), sys.argv[1])
    # A line of its own, even behind a library that printed half a line.
    print(f"\n{MARK} {json.dumps(answer, default=str)}", flush=True)  # noqa: T201
