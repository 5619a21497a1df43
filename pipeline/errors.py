"""Every error this package raises on purpose.

    PipelineError
    |- ConfigError      the user's configuration: says the key, the value, what is allowed, the fix
    |- EngineError      the serving engine: not available, did not start, died
    |- LoadError        the load client could not do its work
    |- MeterError       no energy reading to be had
    `- StoreError       results could not be written or read

The command line prints the message of a PipelineError as one line and exits with `exit_code`;
anything else is a bug and keeps its traceback.
"""


class PipelineError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class ConfigError(PipelineError):
    """The configuration asks for something unknown or impossible."""

    exit_code = 2


class EngineError(PipelineError):
    """The serving engine is not available, did not start, or died.

    Attributes:
        log_tail: The engine's last log lines, oldest first; empty when there is no log.
    """

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        """Keep the message and the log lines."""
        super().__init__(message)
        self.log_tail = log_tail


class LoadError(PipelineError):
    """The load client could not do its work."""


class MeterError(PipelineError):
    """No energy reading is to be had from this meter."""


class StoreError(PipelineError):
    """Results could not be written or read."""
