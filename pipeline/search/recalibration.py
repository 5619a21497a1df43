"""How wrong was the model about the first rows, and what would it say if it had known them?"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.calibrate import calibrate, usable
from pipeline.errors import ConfigError
from pipeline.record import Row
from pipeline.roofline.calibration import Calibration, Errors
from pipeline.roofline.calibration_file import calibration_of
from pipeline.roofline.fit import summary
from pipeline.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """A model fitted to the rows of a study.

    Attributes:
        calibration: The constants.
        num_rows: Rows that it was fitted to.
        before: Error of the constants it started from, on these rows.
        after: Its own.
    """

    calibration: Calibration
    num_rows: int
    before: Errors
    after: Errors

    def __str__(self) -> str:
        """In a line."""
        was, is_ = (
            f"{100 * errors.tokens_per_s.median:.0f} % in tok/s, {100 * errors.power_w.median:.0f} % in W and "
            f"{100 * errors.j_per_token.median:.0f} % in J/token"
            for errors in (self.before, self.after)
        )
        return f"on the first {self.num_rows} rows the model was off by {was}; fitted to them {is_}"


def recalibrated(study: Study, rows: Sequence[Row]) -> Recalibration | None:
    """The model fitted to measured rows of a study; None where they are too few, or were not measured on GPUs."""
    base = calibration_of(study)
    try:
        found = usable(rows, {study.id: study})
        calibration = calibrate(found, base, others=(None, None))  # only its constants are wanted, and soon
    except ConfigError:  # too few rows as yet, or of two versions of the engine, which a resumed study refuses anyway
        return None
    return Recalibration(
        calibration=calibration,
        num_rows=len(found.rows),
        before=summary(found.measured.errors(base)),
        after=summary(found.measured.errors(calibration)),
    )
