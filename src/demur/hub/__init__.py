"""Repositories on the model hub: their names, and reading and writing their files."""

from demur.hub.download import fetch_files
from demur.hub.name import HubName
from demur.hub.repository import HubRepository

__all__ = ["HubName", "HubRepository", "fetch_files"]
