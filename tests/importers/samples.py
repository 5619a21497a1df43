"""Files of other tools, as they are and with values changed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

GONE = object()
"""As a value: take the key away."""


def changed(source: Path, folder: Path, values: Mapping[str, Any], *, name: str = "changed.json") -> Path:
    """A copy of a JSON object with values changed; a key may be a path, `a.b`."""
    content = json.loads(source.read_text())
    for path, value in values.items():
        *keys, last = path.split(".")
        within = content
        for key in keys:
            within = within[key]
        if value is GONE:
            del within[last]
        else:
            within[last] = value
    (folder / name).write_text(json.dumps(content))
    return folder / name
