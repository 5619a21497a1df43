"""Which checkpoint is this? A hash that takes seconds for hundreds of gigabytes."""

import hashlib
from pathlib import Path

WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})


def checkpoint_fingerprint(folder: Path) -> str:
    """First 16 hex digits of a SHA-256 over a checkpoint's files: weights by name and size, all others by content.

    Weights that were changed without a change of size are not told apart; the revision of a Hugging Face snapshot is.

    Raises:
        OSError: If the folder cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = str(path.stat().st_size).encode() if path.suffix in WEIGHT_SUFFIXES else path.read_bytes()
        name = path.relative_to(folder).as_posix().encode()
        digest.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return digest.hexdigest()[:16]


def snapshot_revision(folder: Path) -> str | None:
    """Commit of a snapshot in a Hugging Face cache (.../snapshots/<commit>); None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
