"""Where an engine finds its model."""

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.config import load_study
from pipeline.engine.model_dir import checkpoint_dir, checkpoint_for, hub_cache, random_model_dir
from pipeline.errors import ConfigError
from pipeline.study import Checkpoint, Study

REPO = "meta-llama/Llama-3.1-8B-Instruct"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(
        ["model=llama-3.1-8b", "hardware=h100", "engine=vllm", "precision=auto", "batching=default",
         "workload=chat_1k_1k", "weights=checkpoint", f"engines_dir={tmp_path / 'engines'}"]
    )  # fmt: skip


def with_model(study: Study, **changes: object) -> Study:
    return dataclasses.replace(study, model=dataclasses.replace(study.model, **changes))  # type: ignore[arg-type]  # checked by pydantic


def with_revision(study: Study, revision: str) -> Study:
    checkpoint = dataclasses.replace(study.model.checkpoints["bf16"], revision=revision)
    return with_model(study, checkpoints={"bf16": checkpoint})


def fill(folder: Path, *weight_files: str, indexed: tuple[str, ...] = ()) -> Path:
    """Write a checkpoint's folder with these weight files, and an index that asks for `indexed`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name in weight_files:
        (folder / name).write_bytes(b"w")
    if indexed:
        weight_map = {f"tensor.{i}": name for i, name in enumerate(indexed)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def snapshot(cache: Path, ref: str = "main") -> Path:
    """Lay a repository out as huggingface_hub does; the snapshot itself is not made."""
    repo = cache / f"models--{REPO.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / ref).write_text(COMMIT)
    return repo / "snapshots" / COMMIT


def test_a_downloaded_checkpoint_is_found_in_the_cache(cache: Path, study: Study) -> None:
    folder = fill(snapshot(cache), "model-00001.safetensors", indexed=("model-00001.safetensors",))
    assert checkpoint_dir(study, "bf16") == folder


@pytest.mark.parametrize("revision", [COMMIT, "v1.0"])
def test_a_revision_is_a_commit_or_a_name(cache: Path, study: Study, revision: str) -> None:
    folder = fill(snapshot(cache, "v1.0"), "model.safetensors")
    assert checkpoint_dir(with_revision(study, revision), "bf16") == folder


def test_another_revision_is_not_taken(cache: Path, study: Study) -> None:
    fill(snapshot(cache), "model.safetensors")
    with pytest.raises(ConfigError, match=f"hf download {REPO} --revision abc123"):
        checkpoint_dir(with_revision(study, "abc123"), "bf16")


def test_missing_weights_name_the_ways_out(cache: Path, study: Study) -> None:
    with pytest.raises(ConfigError) as caught:
        checkpoint_dir(study, "bf16")
    message = str(caught.value)
    assert str(cache) in message
    for way_out in (f"hf download {REPO}", "model.path=DIR", "weights=random"):
        assert way_out in message


def test_an_incomplete_download_is_no_checkpoint(cache: Path, study: Study) -> None:
    fill(snapshot(cache), "a.safetensors", indexed=("a.safetensors", "b.safetensors"))
    with pytest.raises(ConfigError, match=r"1 of 2 weight files are missing, e\.g\. b\.safetensors"):
        checkpoint_dir(study, "bf16")


@pytest.mark.parametrize("text", ["{", "[]", ""])
@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json", "model.safetensors.index.json"])
def test_a_broken_file_of_a_checkpoint_is_one_line(tmp_path: Path, study: Study, name: str, text: str) -> None:
    folder = fill(tmp_path / "model", "model.safetensors")
    (folder / name).write_text(text)
    with pytest.raises(
        ConfigError, match=rf"{name}: (cannot be read as JSON|holds no JSON object).*download"
    ) as caught:
        checkpoint_dir(with_model(study, path=str(folder)), "bf16")
    assert "\n" not in str(caught.value)


def test_model_path_comes_first(cache: Path, study: Study, tmp_path: Path) -> None:
    fill(snapshot(cache), "model.safetensors")
    folder = fill(tmp_path / "mine", "pytorch_model-00001-of-00002.bin")
    assert checkpoint_dir(with_model(study, path=str(folder)), "bf16") == folder


@pytest.mark.parametrize(
    ("made", "problem"),
    [((), "no such folder"), (("readme.txt",), r"no config\.json"), (("config.json",), "no weight files")],
)
def test_a_wrong_model_path_is_said_to_be(
    cache: Path, study: Study, tmp_path: Path, made: tuple[str, ...], problem: str
) -> None:
    fill(snapshot(cache), "model.safetensors")
    folder = tmp_path / "mine"
    for name in made:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"model\.path=.*mine: {problem}"):
        checkpoint_dir(with_model(study, path=str(folder)), "bf16")


def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    assert hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("HF_HOME", "/data/hf")
    assert hub_cache() == Path("/data/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/data/hub")
    assert hub_cache() == Path("/data/hub")


def test_fp8_without_a_checkpoint_of_its_own_is_the_bf16_one(study: Study) -> None:
    model = study.model
    assert checkpoint_for(model, "fp8").format == "fp8"
    bf16_only = dataclasses.replace(model, checkpoints={"bf16": model.checkpoints["bf16"]})
    assert checkpoint_for(bf16_only, "fp8").format == "bf16"
    fp4 = Checkpoint(repo="o/m", format="mxfp4", weight_bytes=1, source="test")
    fp4_only = dataclasses.replace(model, checkpoints={"fp4": fp4})
    for weights in ("fp8", "bf16"):
        with pytest.raises(ConfigError, match=rf"precision\.weights={weights}.*allowed: fp4"):
            checkpoint_for(fp4_only, weights)


def test_a_random_model_has_config_and_tokenizer_and_no_weights(study: Study) -> None:
    folder = random_model_dir(study)
    assert folder.is_absolute()
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "config.json").read_text()) == study.model.hf_config
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(study.model.vocab_size))
    assert vocabulary["t0"] == 0
    assert vocabulary[f"t{study.model.vocab_size - 1}"] == study.model.vocab_size - 1


def test_writing_it_again_changes_only_what_is_wrong(study: Study) -> None:
    folder = random_model_dir(study)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    good = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    assert random_model_dir(study) == folder
    assert (folder / "config.json").read_text() == good
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"config.json"}
    assert after.keys() == before.keys()


def test_a_model_of_unknown_shape_cannot_be_random(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"model\.hf_config of llama-3\.1-8b is null.*weights=checkpoint"):
        random_model_dir(with_model(study, hf_config=None))


FORMATS = {
    "bf16": ({}, None),
    "fp8": ({}, {"quantization": {"quant_algo": "FP8"}}),
    "nvfp4": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, None),
    "mxfp4": ({"quantization_config": {"quant_method": "mxfp4"}}, None),
    "fp8_block": ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, None),
}


@pytest.mark.parametrize("written", ["none", 4, ["x"], None])
def test_a_config_that_tells_no_format_in_an_object_is_plain(study: Study, tmp_path: Path, written: object) -> None:
    folder = fill(tmp_path / "model", "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"quantization_config": written}))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": written}))
    assert checkpoint_dir(with_model(study, path=str(folder)), "bf16") == folder


@pytest.mark.parametrize("held", FORMATS)
def test_a_given_folder_must_hold_the_weights_that_its_rows_will_claim(study: Study, tmp_path: Path, held: str) -> None:
    folder = fill(tmp_path / "model", "model.safetensors")
    config, modelopt = FORMATS[held]
    (folder / "config.json").write_text(json.dumps(config))
    if modelopt:
        (folder / "hf_quant_config.json").write_text(json.dumps(modelopt))
    given = with_model(study, path=str(folder))
    for weights, checkpoint in study.model.checkpoints.items():
        if checkpoint.format == held:
            assert checkpoint_dir(given, weights) == folder
        else:
            with pytest.raises(ConfigError, match=rf"precision.weights={weights}: model.path=.* holds {held} weights"):
                checkpoint_dir(given, weights)
