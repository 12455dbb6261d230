"""Users' own attacks, with every result checked."""

from __future__ import annotations

from collections.abc import Callable

from demur.arguments import described
from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS
from demur.plugins import describe_error, load_plugin
from demur.plugins.loading import split_spec
from demur.records import Conversation, Query, text_of

_MOST_NAME = 60


class OwnAttack:
    """An attack that the user wrote; `own_attack` makes it.

    Args:
        attack: object with a method `apply(query)`.
        default: what results call the attack, where it has no attribute `name`.

    Attributes:
        name: what results call the attack.
        source: where it is described, or an empty text.
        opening: what every answer is made to begin with, or None.
        disguises: whether the query's words are disguised.

    Raises:
        DemurError: the attack has no such method, or an attribute is not what it should be.
    """

    def __init__(self, attack: object, default: str) -> None:
        apply = _attribute(attack, "apply", default)
        if not callable(apply):
            raise DemurError(
                f"{default!r:.100} is not an attack: give a class with a method apply(query)."
            )
        self._apply: Callable[[Query], object] = apply
        self.name = _line(attack, "name", default) or default
        self.source = _line(attack, "source", default) or ""
        self.opening = _opening(attack, default)
        self.disguises = bool(_attribute(attack, "disguises", default))

    def apply(self, query: Query) -> Query:
        """The query as the model is asked it.

        Raises:
            DemurError: the attack fails, or returns something other than a text or conversation.
        """
        try:
            attacked = self._apply(query)
        except (Exception, SystemExit) as error:
            raise DemurError(
                f"The attack {self.name!r} failed ({describe_error(error)}): correct it and run "
                "again."
            ) from error
        if isinstance(attacked, Conversation) or (isinstance(attacked, str) and attacked.strip()):
            if len(text_of(attacked)) > MOST_QUERY_CHARACTERS:
                raise DemurError(
                    f"The attack {self.name!r} returned {len(text_of(attacked)):,} characters, and "
                    f"a query has at most {MOST_QUERY_CHARACTERS:,}: return less."
                )
            return attacked
        what = "a blank text" if isinstance(attacked, str) else described(attacked)
        raise DemurError(
            f"The attack {self.name!r} returned {what}: return the attacked query, a text or a "
            "Conversation."
        )


def own_attack(attack: object) -> OwnAttack:
    """The user's attack, checked.

    Args:
        attack: `file.py:Class`, an object with a method `apply`, or a class that can be called
            without arguments.

    Raises:
        DemurError: it cannot be loaded or used as an attack.
    """
    if isinstance(attack, str):
        path, name = split_spec(attack)
        attack, default = load_plugin(attack), f"{path.name}:{name}"
    else:
        default = str(getattr(attack, "__name__", None) or type(attack).__name__)
    if isinstance(attack, type):
        try:
            attack = attack()
        except (Exception, SystemExit) as error:
            raise DemurError(
                f"The attack {default!r:.100} cannot be made without arguments "
                f"({describe_error(error)}): give defaults to its parameters."
            ) from error
    return OwnAttack(attack, default)


def _attribute(attack: object, attribute: str, default: str) -> object:
    try:
        return getattr(attack, attribute, None)
    except (Exception, SystemExit) as error:
        raise DemurError(
            f"The attribute {attribute!r} of the attack {default!r:.100} failed "
            f"({describe_error(error)}): correct it and run again."
        ) from error


def _line(attack: object, attribute: str, default: str) -> str | None:
    """An attribute that is a line of text, or missing."""
    value = _attribute(attack, attribute, default)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise DemurError(
            f"The {attribute} of the attack {default!r:.100} is not a line of text: make the "
            f"attribute {attribute!r} one, or leave it out."
        )
    return value if attribute != "name" else value[:_MOST_NAME]


def _opening(attack: object, default: str) -> str | None:
    value = _attribute(attack, "opening", default)
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise DemurError(
        f"The opening of the attack {default!r:.100} is {described(value)} or blank: make the "
        "attribute 'opening' a text, or leave it out."
    )
