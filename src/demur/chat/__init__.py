"""The only room that runs a model: load, render, represent, sample, differentiate."""

from demur.chat.dialogue import Dialogue
from demur.chat.model import ChatModel
from demur.prompts import Condition

__all__ = ["ChatModel", "Condition", "Dialogue"]
