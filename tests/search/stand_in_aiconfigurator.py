"""A stand-in for aiconfigurator: a folder for PYTHONPATH whose package has the real one's names, errors and habits.

Found in aiconfigurator 0.12.0 and aiconfigurator-core 0.12.0, which it was written after by running them: it knows
one size of its own for anything else; what it says is made up, and easy to compute by hand.
"""

from pathlib import Path

TOKENS_PER_S_PER_REQUEST = 100.0
TTFT_S, TPOT_S = 0.25, 0.01
KV_CACHE_BATCH = 128
"""Batches above it get the real one's warning."""

_API = f"""
print("[aiconfigurator] a banner", end="")

class Result:
    def __init__(self, batch_size, replicas):
        self.tokens_per_second = {TOKENS_PER_S_PER_REQUEST} * batch_size * replicas
        self.ttft, self.tpot = {TTFT_S * 1e3}, {TPOT_S * 1e3}  # ms
        self.kv_cache_warning = "exceeds estimated KV cache capacity" if batch_size > {KV_CACHE_BATCH} else None

def cli_estimate(model_path, system_name, *, mode, backend_name, backend_version, isl, osl, batch_size, ctx_tokens,
                 max_seq_len, tp_size, pp_size, attention_dp_size, moe_tp_size, moe_ep_size, gemm_quant_mode,
                 moe_quant_mode, kvcache_quant_mode):
    assert mode == "agg" and backend_version == "1.3.0rc20"
    if moe_tp_size is not None and tp_size * attention_dp_size != moe_tp_size * moe_ep_size:
        raise ValueError("tp_size * attention_dp_size must equal moe_tp_size * moe_ep_size")
    if moe_tp_size not in (None, 1):
        raise RuntimeError("perf database error: MoE data missing for MoeKey {{ quant: " + moe_quant_mode + " }}")
    if tp_size == 8:
        raise RuntimeError(f"OOM: the model does not fit in GPU memory with the given parallelism (tp={{tp_size}})")
    return Result(batch_size, pp_size * attention_dp_size)
"""

_DATABASE = """
def get_latest_database_version(system, backend):
    return "1.3.0rc20" if system in ("h100_sxm", "b200_sxm") else None
"""

_UTILS = """
def get_model_config_from_model_path(model_path):
    if model_path not in ("openai/gpt-oss-120b", "meta-llama/Meta-Llama-3.1-8B"):
        raise Exception(f"Failed to download {model_path}'s config.json from HuggingFace: <urlopen error>")
"""


def make_stand_in(folder: Path, version: str = "0.12.0") -> Path:
    """Write it into a folder, as pip would."""
    files = {
        "aiconfigurator/__init__.py": "",
        "aiconfigurator/cli/__init__.py": "",
        "aiconfigurator/cli/api.py": _API,
        "aiconfigurator/sdk/__init__.py": "",
        "aiconfigurator/sdk/perf_database.py": _DATABASE,
        "aiconfigurator/sdk/utils.py": _UTILS,
        f"aiconfigurator-{version}.dist-info/METADATA": f"Name: aiconfigurator\nVersion: {version}\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder
