"""How a candidate is compared with a reference: the conf group `quality`."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.compose import compose_conf
from pipeline.errors import ConfigError

PROMPTS = Path(__file__).parent / "prompts.txt"

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class QualitySettings:
    """As conf/quality/default.yaml explains them."""

    max_tokens: int = Field(ge=1)
    logprobs: int = Field(ge=0, le=20)
    concurrency: int = Field(ge=1)
    timeout_s: float = Field(gt=0)
    min_token_agreement: float = Field(ge=0, le=1)
    max_kl_nats: float = Field(ge=0)
    min_accuracy_ratio: float = Field(gt=0, le=1)
    lm_eval_timeout_s: float = Field(gt=0)
    prompts: str | None = None
    lm_eval_python: str | None = None
    lm_eval_tasks: tuple[str, ...] = ()
    lm_eval_tasks_dir: str | None = None
    lm_eval_limit: int | None = Field(default=None, ge=1)
    lm_eval_tokenizer: str | None = None

    def __post_init__(self) -> None:
        """Check what no single setting shows.

        Raises:
            ValueError: If there are tasks and nothing to run them with, or the other way round.
        """
        if (self.lm_eval_python is None) != (not self.lm_eval_tasks):
            raise ValueError(
                "lm_eval_python and lm_eval_tasks go together: name the interpreter that has lm-eval, and its tasks"
            )


def load_settings(overrides: Sequence[str]) -> QualitySettings:
    """The settings that these overrides compose.

    Raises:
        ConfigError: If a key is unknown, or a value is wrong.
    """
    try:
        return TypeAdapter(QualitySettings).validate_python(compose_conf(overrides)["quality"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("quality", *map(str, first["loc"])))
        given = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
        raise ConfigError(f"{key}{given}: {first['msg'].removeprefix('Value error, ')}") from error


def read_prompts(settings: QualitySettings) -> tuple[str, ...]:
    """The prompts, one a line.

    Raises:
        ConfigError: If the file cannot be read, or holds none.
    """
    path = Path(settings.prompts) if settings.prompts else PROMPTS
    try:
        lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"quality.prompts={path}: cannot be read ({error}); give a text file") from error
    if not lines:
        raise ConfigError(f"quality.prompts={path}: holds no prompt; write one a line")
    return lines
