import dataclasses

import pytest

from pipeline.engine_config import canonical_json
from pipeline.roofline.bound import physical_limit
from pipeline.roofline.share import Share, share_of_limit
from pipeline.workload import OperatingPoint
from tests.builders import MODELLED, make_row, make_study
from tests.roofline import facts

STUDY = make_study(*MODELLED)
CONFIG = facts.engine_config("fp4", 2, engine="trtllm")
ROW = make_row(
    model="gpt-oss-120b", hardware="b200", concurrency=8, config_json=canonical_json(CONFIG.requested()),
    output_tokens_per_s=100.0, output_tokens_per_joule=0.5,
)  # fmt: skip


def test_a_rows_share_is_its_value_over_the_limit_at_its_load() -> None:
    limit = physical_limit(STUDY.model, STUDY.hardware, STUDY.workload, CONFIG, OperatingPoint(concurrency=8))
    assert limit is not None
    assert limit.output_tokens_per_joule is not None
    found = share_of_limit(ROW, STUDY)
    assert found.output_tokens_per_s == pytest.approx(100 / limit.output_tokens_per_s)
    assert found.output_tokens_per_joule == pytest.approx(0.5 / limit.output_tokens_per_joule)


def test_there_is_no_share_where_there_is_no_limit_or_no_value() -> None:
    assert share_of_limit(dataclasses.replace(ROW, model="another"), STUDY) == Share()
    assert share_of_limit(dataclasses.replace(ROW, config_json='{"precision.weights": "int3"}'), STUDY) == Share()
    assert share_of_limit(dataclasses.replace(ROW, output_tokens_per_joule=None), STUDY).output_tokens_per_joule is None
    cpu = make_study()
    assert share_of_limit(dataclasses.replace(ROW, model=cpu.model.name, hardware="cpu"), cpu) == Share()
