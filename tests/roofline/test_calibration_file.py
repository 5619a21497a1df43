import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.roofline.calibration import SHIPPED
from pipeline.roofline.calibration_file import calibration_of, read_calibration, write_calibration
from tests.builders import MODELLED, make_study

OWN = dataclasses.replace(SHIPPED, id="own", host_s=3e-3)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = write_calibration(OWN, tmp_path / "new")
    assert path.name == "own.json"
    assert read_calibration(path) == OWN


def test_a_study_has_the_shipped_constants_unless_it_names_others(tmp_path: Path) -> None:
    assert calibration_of(make_study(*MODELLED)) is SHIPPED
    path = write_calibration(OWN, tmp_path)
    assert calibration_of(make_study(*MODELLED, f"calibration={path}")) == OWN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host_s": 9.0}, r"host_s=9: allowed are 1e-05 to 0\.02; fit it anew"),
        ({"host_s": "many"}, r"is no calibration \(host_s: "),
        ({"id": None}, r"is no calibration \(id: "),
    ],
)
def test_a_file_that_is_no_calibration_says_where(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_calibration(OWN, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ConfigError, match=message):
        read_calibration(path)


def test_a_file_that_is_not_there_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read \(No such file or directory\)"):
        read_calibration(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("nothing", "utf-8")
    with pytest.raises(ConfigError, match="is no calibration"):
        read_calibration(tmp_path / "text.json")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StoreError, match=r"own\.json: cannot be written"):
        write_calibration(OWN, tmp_path / "file")


def test_a_prediction_is_as_far_off_as_the_fit_was_on_such_models() -> None:
    provenance = SHIPPED.provenance
    assert provenance is not None
    assert SHIPPED.error_of("llama-3.1-8b") == provenance.inside
    assert SHIPPED.error_of("another") == provenance.outside
    narrow = dataclasses.replace(SHIPPED, provenance=dataclasses.replace(provenance, left_out="config"))
    assert narrow.error_of("another") is None
    assert dataclasses.replace(SHIPPED, provenance=None).error_of("llama-3.1-8b") is None
