"""Responses that exist already as answers, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import Answer
from demur.prompts import BASIC_PROMPTS
from demur.reading import FileSpec, GivenRequest, GivenResponse, ResponseReader, Watch
from demur.records import NO_PROMPT, fingerprint, identity_of, text_of

DEFAULT_SET = "responses"
MOST_PROMPTS = 50
"""A column with more names than this holds something other than prompts."""

_MOST_NAME = 200
_LEAST_ROWS = 10
_NO_NAMES = "if it holds the queries, call it 'query', or else by another name"


@dataclass(frozen=True)
class GivenFile:
    """A file of responses, and what belongs to it.

    Attributes:
        spec: the file, and the field that holds the responses.
        called: name of the prompt where the rows name none.
        requests: what was asked, by identifier, where that stands in a file of its own.
    """

    spec: FileSpec
    called: str
    requests: Mapping[str, GivenRequest] | None = None

    def reader(self) -> ResponseReader:
        """A reader of the file."""
        return ResponseReader(self.spec, self.requests)

    def answers(self, reader: ResponseReader, watch: Watch | None = None) -> Iterator[Answer]:
        """The answers in the file, in their order.

        Args:
            reader: reads the file.
            watch: sees the bytes that are read.

        Raises:
            DemurError: the file cannot be read, or a row is damaged or holds no response; the
                message names the row.
        """
        for response in reader.read(watch):
            yield self._answer(response)

    def _answer(self, response: GivenResponse) -> Answer:
        condition = response.condition
        if condition is None and response.system is not None:
            # Not merged with another file's: its system text may be the same, and its model not.
            condition = fingerprint("system text", file=self.called, text=response.system)
        return Answer(
            prompt=response.prompt or self.called,
            condition=condition,
            set=response.set or DEFAULT_SET,
            label=response.label,
            category=response.category,
            query=response.query,
            text=response.text,
            end=response.end,
        )


@dataclass
class PromptNames:
    """Checks that what names the safety prompts of files does name prompts.

    Attributes:
        rows: number of rows under each name.
        conditions: the conditions that were seen.
        generators: the file that a name of a generator stands in.
        places: the file that holds the responses under one prompt to one query of a set.
    """

    rows: dict[str, int] = field(default_factory=dict)
    conditions: set[str] = field(default_factory=set)
    generators: dict[str, str] = field(default_factory=dict)
    places: dict[bytes, str] = field(default_factory=dict)

    def add(self, answer: Answer, file: GivenFile, reader: ResponseReader) -> None:
        """Check one more answer.

        Raises:
            DemurError: a name is a text, there are too many of them, queries are names, or another
                file has responses under the same prompt to the same query.
        """
        name = f"{file.spec.name:.120}"
        if answer.condition is not None:
            self.conditions.add(answer.condition)
        if len(self.conditions) > MOST_PROMPTS:
            raise DemurError(
                f"{name} holds more than {MOST_PROMPTS} different system messages: judge those of "
                "one application, or leave the system messages out."
            )
        if reader.query_field == "prompt" and answer.query in (NO_PROMPT, *BASIC_PROMPTS):
            raise DemurError(
                f"The column 'prompt' of {name} would be read as the queries, because there is no "
                f"column 'query', but it holds {answer.query!r:.40}: call it 'safety_prompt' if it "
                "names safety prompts."
            )
        self.rows[answer.prompt] = self.rows.get(answer.prompt, 0) + 1
        if reader.names_generators:
            self._add_generator(answer.prompt, name)
        self._add_place(answer, name)
        if len(self.rows) > MOST_PROMPTS:
            raise DemurError(
                f"The column 'prompt' names more than {MOST_PROMPTS} safety prompts: {_NO_NAMES}."
            )
        is_query = answer.query is not None and answer.prompt == text_of(answer.query).strip()
        if len(answer.prompt) > _MOST_NAME or "\n" in answer.prompt or is_query:
            raise DemurError(
                f"The column 'prompt' of {name} holds {answer.prompt!r:.60}, which is a text and "
                f"no name of a safety prompt: {_NO_NAMES}."
            )

    def finish(self) -> None:
        """Check all names together.

        Raises:
            DemurError: each of many names stands in one row alone.
        """
        if len(self.rows) >= _LEAST_ROWS and set(self.rows.values()) == {1}:
            raise DemurError(
                f"The column 'prompt' has another value in each of {len(self.rows)} rows, so it "
                f"does not name safety prompts: {_NO_NAMES}."
            )

    def _add_place(self, answer: Answer, name: str) -> None:
        """Two evaluations with one name of a prompt are not samples of one."""
        query = None if answer.query is None else identity_of(answer.query)
        place = fingerprint(
            "responses under one prompt to one query",
            prompt=answer.prompt if answer.condition is None else None,
            condition=answer.condition,
            set=answer.set,
            label=answer.label,
            query=query,
        )
        other = self.places.setdefault(bytes.fromhex(place)[:16], name)
        if other != name:
            what = "without queries" if query is None else "to the same queries"
            raise DemurError(
                f"{other} and {name} both hold responses under {answer.prompt!r:.60} {what}, which "
                "would count as samples of one prompt: give their prompts different names, put "
                "samples into one file, or compare two evaluations with demur compare."
            )

    def _add_generator(self, generator: str, name: str) -> None:
        other = self.generators.setdefault(generator, name)
        if other != name:
            raise DemurError(
                f"{other} and {name} hold outputs of one 'generator', {generator!r:.60}: give them "
                "different ones, or put them into one file if they are samples."
            )
