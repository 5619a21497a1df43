"""The names that a knob of TensorRT-LLM may have: hundreds, and open-ended where an argument is a free-form mapping."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from pipeline.engine.trtllm.environment import SWITCHES
from pipeline.engine.trtllm.llm_args import ALIASES, AXES, ENV, GRAPHS
from pipeline.engine.trtllm.manifest import every_argument


class Knobs(AbstractSet[str]):
    """Every argument of any known release, and `env.NAME`; rendering knows which a version has and an axis sets."""

    def __contains__(self, name: object) -> bool:
        """Whether a name may be looked at when rendering."""
        if not isinstance(name, str):
            return False
        argument = every_argument().find(ALIASES.get(name, name))
        return name == GRAPHS or name.startswith(ENV) or (argument is not None and not argument.is_group)

    def __iter__(self) -> Iterator[str]:
        """The names to choose from."""
        arguments = every_argument().arguments.items()
        names = {name for name, argument in arguments if not argument.is_group} - AXES.keys()
        return iter(sorted(names | {GRAPHS} | {ENV + name for name in SWITCHES}))

    def __len__(self) -> int:
        """How many there are to choose from."""
        return sum(1 for _ in self)
