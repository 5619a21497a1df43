"""A file's content as YAML. PyYAML takes a tenth of a millisecond for it, and every config of a space is rendered."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def yaml_text(args: Mapping[str, Any]) -> str:
    """Nested mappings as blocks, everything within them as JSON, which is YAML too.

    Args:
        args: Keys are plain words; values are mappings, lists of scalars and scalars.
    """
    return "".join(_lines(args, ""))


def _lines(args: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in args.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:\n"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {_flow(value)}\n"


def _flow(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    # YAML 1.1 takes 1e-05 for a word
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
