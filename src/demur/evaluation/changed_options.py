"""How requests to endpoints were changed, kept beside the measurements that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from demur.endpoint import AsksEndpoint, ChangedOptions
from demur.records import MeasurementStore, read_record, write_record

FILE = "changed-options.json"
_FORMAT = "changed options"


@dataclass(frozen=True)
class _Kept:
    """The content of the file."""

    options: tuple[ChangedOptions, ...]


def keep_changes(store: MeasurementStore, askers: Iterable[object]) -> None:
    """Keep how requests were changed, before anything that came of them is stored.

    Args:
        store: where the measurements lie.
        askers: whatever may have asked an endpoint.

    Raises:
        DemurError: the file is damaged, or cannot be written.
    """
    found = [one.changed_options for one in askers if isinstance(one, AsksEndpoint)]
    _add(store, [one for one in found if one is not None])


def copy_changes(store: MeasurementStore, lender: MeasurementStore) -> None:
    """Keep what belongs to a measurement that was copied from another folder.

    Raises:
        DemurError: a file is damaged, or cannot be written.
    """
    _add(store, kept_changes(lender))


def kept_changes(store: MeasurementStore) -> tuple[ChangedOptions, ...]:
    """How requests to each endpoint were changed for the measurements in a store.

    Raises:
        DemurError: the file is damaged.
    """
    file = store.path / FILE
    return read_record(file, _Kept, _FORMAT, in_work=True).options if file.exists() else ()


def _add(store: MeasurementStore, changes: Sequence[ChangedOptions]) -> None:
    """Write what is not known yet."""
    if not changes:
        return
    known = {(one.place, one.model): one for one in kept_changes(store)}
    before = dict(known)
    for one in changes:
        place = (one.place, one.model)
        known[place] = known[place].merged(one.left_out, one.limit) if place in known else one
    if known != before:
        options = tuple(known[place] for place in sorted(known))
        write_record(store.path / FILE, _Kept(options), _FORMAT)
