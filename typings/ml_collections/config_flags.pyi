from collections.abc import Sequence
from typing import Any

from absl import flags

from .config_dict import ConfigDict

def DEFINE_config_dict(
    name: str,
    config: ConfigDict,
    help_string: str = ...,
    flag_values: flags.FlagValues = ...,
    lock_config: bool = True,
    sys_argv: Sequence[str] | None = None,
    **kwargs: Any,
) -> Any: ...
