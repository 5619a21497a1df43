"""The embedded engine's own Python and a very small model, for the tests that run the real thing."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE_PYTHON = ROOT / ".venv-openvino" / "bin" / "python"
EMBEDDED = ROOT / "pipeline" / "engine" / "embedded"

VOCAB = 300
CONTEXT_TOKENS = 32_768
SMALL = {"layers": 2, "hidden": 64, "heads": 4, "kv-heads": 2, "intermediate": 128, "vocab": VOCAB}


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the engine's Python and keep what it prints; fails with the fix where there is none."""
    assert ENGINE_PYTHON.exists(), "the embedded engine's environment is missing: run `make .venv-openvino`"
    return subprocess.run([str(ENGINE_PYTHON), *args], capture_output=True, text=True, check=False, timeout=60)


def write_small_model(path: Path, **sizes: int) -> subprocess.CompletedProcess[str]:
    """Run tiny_gguf.py; `sizes` override those of the small model."""
    wanted = {**SMALL, "context": CONTEXT_TOKENS, **{name.replace("_", "-"): size for name, size in sizes.items()}}
    options = [part for name, size in wanted.items() for part in (f"--{name}", str(size))]
    return run_python(str(EMBEDDED / "tiny_gguf.py"), str(path), *options)
