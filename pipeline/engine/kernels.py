"""What engines on PyTorch compile while they run: what their logs say of it, and where they keep the results.

Much is compiled without a word, and a word is often said once per kernel, not once per shape; so caches and CPU time
are watched too. Nothing is certain to show: NVRTC compiles in memory, and a cache may be shared with other processes.
"""

import getpass
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

COMPILE_TEXTS = (
    r"Triton autotuning for function",  # triton/runtime/autotuner.py, where TRITON_PRINT_AUTOTUNING is on
    r"Autotuning kernel \w+ with config",  # the same, one line per candidate
    r"\bAUTOTUNE \w+\(",  # torch/_inductor/select_algorithm.py
    r"\[AutoTuner\]: Tuning ",  # flashinfer/autotuner.py
    r"\[Autotuner\]:? Autotuning process starts",  # the same, and tensorrt_llm/_torch/autotuner.py
    r"flashinfer\.jit: Loading JIT ops",  # flashinfer/jit/core.py: builds what is not in its cache
    r"TileLang begins to compile kernel",  # tilelang/jit/kernel.py
)


def compile_line(*more: str) -> re.Pattern[str]:
    """Matches a log line that tells of a kernel being compiled or tuned; `more` is what one engine says besides."""
    return re.compile("|".join((*COMPILE_TEXTS, *more)))


def cache_dirs(environ: Mapping[str, str], *more: Path) -> tuple[Path, ...]:
    """Where compiled kernels land, existing or not, none inside another; `more` are one engine's own.

    Args:
        environ: The engine's environment.
        more: Further folders.
    """
    home = home_dir(environ)
    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    dirs = (
        folder(environ, "TRITON_CACHE_DIR", folder(environ, "TRITON_HOME", home) / ".triton" / "cache"),
        folder(environ, "TORCHINDUCTOR_CACHE_DIR", temporary / f"torchinductor_{_user()}"),
        folder(environ, "FLASHINFER_WORKSPACE_BASE", home) / ".cache" / "flashinfer",
        folder(environ, "TILELANG_CACHE_DIR", home / ".tilelang" / "cache"),
        folder(environ, "CUDA_CACHE_PATH", home / ".nv" / "ComputeCache"),
        *more,
    )
    return tuple(sorted({path for path in dirs if not any(other in path.parents for other in dirs)}))


def folder(environ: Mapping[str, str], name: str, default: Path) -> Path:
    """A folder that an environment variable may name."""
    return Path(environ[name]).expanduser() if environ.get(name) else default


def home_dir(environ: Mapping[str, str]) -> Path:
    """Home of the user under whom the engine runs."""
    return folder(environ, "HOME", Path("~").expanduser())


def _user() -> str:
    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"
