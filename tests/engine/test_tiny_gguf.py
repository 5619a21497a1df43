"""The random-weight model: what is asked for is in the file, and the same file comes out every time."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.embedded_engine import CONTEXT_TOKENS, EMBEDDED, SMALL, VOCAB, run_python, write_small_model

READ_GGUF = """
import json, sys
import numpy as np
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
tensors = {t.name: [[int(n) for n in t.shape], t.tensor_type.name, float(np.std(t.data.astype(np.float64)))]
           for t in reader.tensors}
print(json.dumps({"fields": fields, "tensors": tensors}))
"""

CHECK_VOCABULARY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tiny_gguf import vocabulary
print(json.dumps({size: vocabulary(size) for size in (259, 260, 300, 259 + 26 * 26, 4096, 20_000)}))
"""


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    done = write_small_model(path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def contents(small_model: Path) -> dict[str, Any]:
    done = run_python("-c", READ_GGUF, str(small_model))
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def test_same_arguments_give_same_bytes(small_model: Path, tmp_path: Path) -> None:
    assert write_small_model(tmp_path / "again.gguf").returncode == 0
    assert (tmp_path / "again.gguf").read_bytes() == small_model.read_bytes()


def test_seed_changes_weights(small_model: Path, tmp_path: Path) -> None:
    assert write_small_model(tmp_path / "other.gguf", seed=1).returncode == 0
    other = (tmp_path / "other.gguf").read_bytes()
    assert len(other) == small_model.stat().st_size
    assert other != small_model.read_bytes()


def test_only_the_finished_file_is_left(small_model: Path) -> None:
    assert [path.name for path in small_model.parent.iterdir()] == ["model.gguf"]


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    assert write_small_model(target).returncode != 0
    assert list(tmp_path.iterdir()) == [target]
    assert not list(target.iterdir())


def test_architecture_is_as_asked(contents: dict[str, Any]) -> None:
    fields = contents["fields"]
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == SMALL["layers"]
    assert fields["llama.embedding_length"] == SMALL["hidden"]
    assert fields["llama.attention.head_count"] == SMALL["heads"]
    assert fields["llama.attention.head_count_kv"] == SMALL["kv-heads"]
    assert fields["llama.feed_forward_length"] == SMALL["intermediate"]
    assert fields["llama.context_length"] == CONTEXT_TOKENS
    assert len(fields["tokenizer.ggml.tokens"]) == VOCAB


def test_tensors_have_the_shapes_of_a_llama(contents: dict[str, Any]) -> None:
    tensors = contents["tensors"]
    hidden, kv_width = SMALL["hidden"], SMALL["hidden"] // SMALL["heads"] * SMALL["kv-heads"]
    assert len(tensors) == 3 + 9 * SMALL["layers"]
    # GGUF lists the fastest dimension first.
    assert tensors["token_embd.weight"][0] == tensors["output.weight"][0] == [hidden, VOCAB]
    assert tensors["blk.1.attn_q.weight"][0] == [hidden, hidden]
    assert tensors["blk.1.attn_k.weight"][0] == tensors["blk.1.attn_v.weight"][0] == [hidden, kv_width]
    assert tensors["blk.1.ffn_up.weight"][0] == [hidden, SMALL["intermediate"]]
    assert tensors["blk.1.ffn_down.weight"][0] == [SMALL["intermediate"], hidden]


def test_matrices_are_f16_normal_and_norms_are_one(contents: dict[str, Any]) -> None:
    for name, (_, kind, std) in contents["tensors"].items():
        if "norm" in name:
            assert (kind, std) == ("F32", 0.0)
        else:
            assert kind == "F16"
            assert std == pytest.approx(0.02, rel=0.05)


def test_tied_embeddings_have_no_output_matrix(tmp_path: Path) -> None:
    script = str(EMBEDDED / "tiny_gguf.py")
    options = [part for name, size in SMALL.items() for part in (f"--{name}", str(size))]
    assert run_python(script, str(tmp_path / "tied.gguf"), *options, "--tie-embeddings").returncode == 0
    tensors = json.loads(run_python("-c", READ_GGUF, str(tmp_path / "tied.gguf")).stdout)["tensors"]
    assert "output.weight" not in tensors
    assert "token_embd.weight" in tensors


def test_every_vocabulary_is_full_unique_and_reachable_by_merges() -> None:
    for size, (tokens, merges) in json.loads(run_python("-c", CHECK_VOCABULARY, str(EMBEDDED)).stdout).items():
        assert len(tokens) == len(set(tokens)) == int(size)
        known = set(tokens[:259])
        for merge, token in zip(merges, tokens[259:], strict=True):
            left, right = merge.split(" ")
            assert {left, right} <= known
            assert left + right == token
            known.add(token)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"hidden": 66}, "--hidden 66"),
        ({"kv_heads": 3}, "--kv-heads 3"),
        ({"vocab": 258}, "--vocab 258"),
        ({"layers": 0}, "at least 1"),
    ],
)
def test_impossible_sizes_end_with_one_line(sizes: dict[str, int], named: str, tmp_path: Path) -> None:
    done = write_small_model(tmp_path / "model.gguf", **sizes)
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
