"""Users' own code: objects named as `file.py:Name`, and fingerprints of what users wrote."""

from demur.plugins.errors import describe_error, traceback_of_bug
from demur.plugins.identity import plugin_fingerprint, source_fingerprint
from demur.plugins.loading import is_plugin_spec, load_plugin

__all__ = [
    "describe_error",
    "is_plugin_spec",
    "load_plugin",
    "plugin_fingerprint",
    "source_fingerprint",
    "traceback_of_bug",
]
