"""Repositories on the model hub: their names, and reading and writing their files."""

from demur.hub.download import fetch_files
from demur.hub.failures import explained_download
from demur.hub.model_name import HubModel
from demur.hub.name import HubName
from demur.hub.repository import HubRepository

__all__ = ["HubModel", "HubName", "HubRepository", "explained_download", "fetch_files"]
