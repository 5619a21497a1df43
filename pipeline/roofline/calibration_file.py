"""Calibrations of one's own rows, as files: written once, named after what they hold, read where a study names one."""

from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError, StoreError
from pipeline.roofline.calibration import CONSTANTS, SHIPPED, Calibration
from pipeline.study import Study

_CALIBRATION = TypeAdapter(Calibration)


def calibration_of(study: Study) -> Calibration:
    """The constants that a study's predictions rest on: of the file it names, else the shipped ones.

    Raises:
        ConfigError: If the file cannot be read.
    """
    return SHIPPED if study.calibration is None else read_calibration(Path(study.calibration))


@lru_cache(maxsize=8)
def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        ConfigError: If it is not there, is no calibration, or a constant is out of its bounds.
    """
    try:
        found = _CALIBRATION.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"calibration={path}: cannot be read ({error.strerror}); tpw calibrate writes such files, null takes the "
            "shipped constants"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"calibration={path}: is no calibration ({key}: {first['msg']}); see tpw calibrate"
        ) from error
    for name, (_, low, high) in CONSTANTS.items():
        if not low <= getattr(found, name) <= high:
            raise ConfigError(
                f"calibration={path}: {name}={getattr(found, name):g}: allowed are {low:g} to {high:g}; fit it anew"
            )
    return found


def write_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write a calibration to a file named after its id; returns the path.

    Raises:
        StoreError: If the folder cannot be written.
    """
    path = folder / f"{calibration.id}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_CALIBRATION.dump_json(calibration, indent=2) + b"\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error
    return path
