"""Publish a safety prompt on the hub, with a card and a figure."""

from demur.sharing.card import base_model_of
from demur.sharing.pushing import push, write_repository

__all__ = ["base_model_of", "push", "write_repository"]
