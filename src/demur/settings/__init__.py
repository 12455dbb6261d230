"""Settings: nested pydantic models as command-line options, TOML keys and commands.

A setting is written once, as a field of a pydantic model:

- Every field has a `description`, and its range is given by `ge`, `gt`, `le`, `lt` or `Literal`.
- Its name is its option: `learning_rate` is `--learning-rate`. Names are unique in a command.
- A nested model is a group of settings; the first line of its docstring is the group's title.
- `json_schema_extra` may hold `argument` (True: the setting is positional) and `default` (a text
  that describes a default of None or `()`, for example "all of them"), and `missing` (what to say
  where a required setting is not given).
- A `tuple[str, ...]` is an option that may be repeated.

In TOML a setting is a key at the top or in the table of its group. Where a setting may be None, the
text `none` means None, and an empty text means an empty tuple.
"""

from demur.settings.commands import command_line, default_text, item_of, options_of
from demur.settings.options import NONE, Option, options_in
from demur.settings.toml import load_toml, read_toml, read_toml_text, values_in
from demur.settings.values import as_choice, build, part_of, unknown_setting, values_of

__all__ = [
    "NONE",
    "Option",
    "as_choice",
    "build",
    "command_line",
    "default_text",
    "item_of",
    "load_toml",
    "options_in",
    "options_of",
    "part_of",
    "read_toml",
    "read_toml_text",
    "unknown_setting",
    "values_in",
    "values_of",
]
