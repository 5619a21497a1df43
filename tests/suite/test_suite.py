import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.choose.conditions import comparable
from pipeline.config import load_study
from pipeline.errors import ConfigError
from pipeline.store import Store
from pipeline.suite.pick import pick
from pipeline.suite.suite import Suite, on_release, only, read_suite, suite_of, words_of, write_suite
from tests.builders import StubRig, make_slo

RECORDED = Store(Path(__file__).parents[2] / "results")


def recorded(study: str = "h100-llama-3.1-8b") -> Suite:
    pool = comparable(RECORDED, [study], {})
    return suite_of("nightly", pick(pool, make_slo(), 0.05)[0], pool, 0.05)


@pytest.mark.parametrize("study", ["h100-llama-3.1-8b", "h200-llama-3.1-8b-rag", "h200-qwen3-32b"])
def test_what_a_suite_measures_again_joins_with_the_rows_it_was_picked_from(study: str, tmp_path: Path) -> None:
    suite = read_suite(write_suite(tmp_path, recorded(study)))
    assert suite == recorded(study)
    rows = {row.case_id: row for row in RECORDED.rows(study)}
    for member in suite.members:
        composed = only(suite, member, load_study(words_of(suite, member, ["engine.python=other"])))
        (config_hash,) = {rows[case_id].config_hash for case_id in member.case_ids}
        assert config_hash == member.config_hash
        assert [rows[case_id].concurrency for case_id in member.case_ids] == member.loads
        assert list(composed.workload.concurrency) == member.loads
        assert not composed.slo.bounds


@pytest.mark.parametrize(
    "word",
    ["workload.seed=7", "hardware=h200", "weights=checkpoint", "model=llama-3.3-70b", "workload.concurrency=[8]"],
)
def test_what_would_not_join_is_refused(word: str) -> None:
    suite = recorded()
    member = suite.members[-1]
    assert len(member.loads) > 1
    with pytest.raises(ConfigError, match="suite nightly: what would be measured are other cases than its own"):
        only(suite, member, load_study(words_of(suite, member, [word])))


def test_each_release_image_and_gpu_has_a_study_of_its_own() -> None:
    suite = recorded()
    member = suite.members[0]
    study = load_study(words_of(suite, member, []))
    rig = StubRig(study, lambda *_: {})
    rig.engine_version, rig.first_gpu = "0.25.0+cu 13", "GPU-12345678-9abc"
    image = dataclasses.replace(study, engine=dataclasses.replace(study.engine, image=f"vllm@sha256:{'ab' * 32}"))
    start = f"nightly-{member.config_hash[:8]}-0.25.0_cu_13"
    assert on_release(suite, member, study, rig).id == f"{start}-gpu-12345678"
    assert re.fullmatch(rf"{re.escape(start)}-[0-9a-f]{{8}}-gpu-12345678", on_release(suite, member, image, rig).id)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "cannot be read"),
        ("name: x", "no suite: overrides: "),
        ("[]", "no suite: the file: "),
        ("name: x\noverrides: []\nmembers: []", "members is empty"),
        ("name: x\noverrides: []\nmembers: []\nschema_version: 9", "schema_version=9 is newer"),
        (
            "name: x\noverrides: []\nmembers: [{config: {}, config_hash: a, loads: [fast], case_ids: []}]",
            "members.0.loads",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_suite(path)
    assert why in str(refused.value)
    assert str(path) in str(refused.value)
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        read_suite(tmp_path / "missing.yaml")


def test_a_suite_that_is_there_is_kept(tmp_path: Path) -> None:
    path = write_suite(tmp_path, recorded())
    before = path.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        write_suite(tmp_path, dataclasses.replace(recorded(), overrides=[]))
    assert path.read_text() == before
