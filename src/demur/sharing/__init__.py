"""Giving a finished run's safety prompt to others."""

from demur.sharing.pushing import push, write_repository

__all__ = ["push", "write_repository"]
