"""Typed records that travel between packages and last on disk, with the one codec for them."""

from demur.records.codec import (
    damaged,
    format_of,
    from_plain,
    read_record,
    record_bytes,
    record_from,
    stored_content,
    to_plain,
    write_record,
)
from demur.records.conversations import (
    Conversation,
    Exchange,
    Query,
    history_of,
    identity_of,
    in_conversation,
    text_of,
    tools_before,
    transcript_of,
    with_tools,
)
from demur.records.fingerprint import fingerprint, tensor_fingerprint
from demur.records.folder import RESULTS, SETTINGS, WorkFolder, folders_of_work, kind_of
from demur.records.listing import ListedFile, are_listed, list_files
from demur.records.measurements import (
    NO_PROMPT,
    ConditionRecord,
    Measurement,
    MeasurementKey,
    Queries,
    evenly,
)
from demur.records.models import FileRecord, FilesRecord, ModelRecord, ServerRecord
from demur.records.rates import Interval, Rate
from demur.records.reasoning import answer_in, answer_stretch
from demur.records.responses import (
    FILTERED,
    NO_ANSWER,
    REASONING,
    REFUSAL,
    Harm,
    JudgedResponse,
    Label,
    Verdict,
    may_harm,
)
from demur.records.store import MeasurementHeader, MeasurementStore, StoredMeasurement
from demur.records.tensors import StoredTensors, read_tensors, write_tensors
from demur.records.tools import tool_names, tools_of
from demur.records.versions import Versions, current_versions

__all__ = [
    "FILTERED",
    "NO_ANSWER",
    "NO_PROMPT",
    "REASONING",
    "REFUSAL",
    "RESULTS",
    "SETTINGS",
    "ConditionRecord",
    "Conversation",
    "Exchange",
    "FileRecord",
    "FilesRecord",
    "Harm",
    "Interval",
    "JudgedResponse",
    "Label",
    "ListedFile",
    "Measurement",
    "MeasurementHeader",
    "MeasurementKey",
    "MeasurementStore",
    "ModelRecord",
    "Queries",
    "Query",
    "Rate",
    "ServerRecord",
    "StoredMeasurement",
    "StoredTensors",
    "Verdict",
    "Versions",
    "WorkFolder",
    "answer_in",
    "answer_stretch",
    "are_listed",
    "current_versions",
    "damaged",
    "evenly",
    "fingerprint",
    "folders_of_work",
    "format_of",
    "from_plain",
    "history_of",
    "identity_of",
    "in_conversation",
    "kind_of",
    "list_files",
    "may_harm",
    "read_record",
    "read_tensors",
    "record_bytes",
    "record_from",
    "stored_content",
    "tensor_fingerprint",
    "text_of",
    "to_plain",
    "tool_names",
    "tools_before",
    "tools_of",
    "transcript_of",
    "with_tools",
    "write_record",
    "write_tensors",
]
