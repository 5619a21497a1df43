"""What the stand-ins for container tools cannot do is to hide this machine, so they refuse what would be hidden."""

import re
from collections.abc import Sequence
from pathlib import Path


def unseen(host: Path, texts: Sequence[str], targets: Sequence[str]) -> str | None:
    """The first file below `host` that a text names and no target of a mount covers, or None."""
    for text in texts:
        for match in re.finditer(re.escape(str(host)) + r"[^\s:,;\"']*", text):
            path = Path(match.group())
            if path.exists() and not any(path.is_relative_to(target) for target in targets):
                return str(path)
    return None
