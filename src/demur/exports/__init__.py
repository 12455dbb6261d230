"""An optimized prompt in the forms that other engines load."""

from demur.exports.export import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
