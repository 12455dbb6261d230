"""Repositories on the model hub: their names, and their files on the way there and back."""

from demur.hub.download import fetch_files
from demur.hub.name import HubName
from demur.hub.repository import HubRepository

__all__ = ["HubName", "HubRepository", "fetch_files"]
