"""The attacks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demur.attacks.families.encodings import Base64, Leetspeak, Rot13, SpacedLetters
from demur.attacks.families.languages import Languages
from demur.attacks.families.many_shot import ManyShot
from demur.attacks.families.openings import Prefill, PrefixInjection
from demur.attacks.families.overrides import SystemOverride, UserOverride
from demur.attacks.families.role_play import Fiction, RolePlay
from demur.attacks.families.suppression import RefusalSuppression
from demur.attacks.own import OwnAttack, own_attack
from demur.attacks.protocol import Attack
from demur.errors import DemurError, did_you_mean
from demur.plugins import is_plugin_spec

AttackChoice = str | Attack | type[Attack]
"""Name of an attack, `file.py:Class`, or an object or class with `apply`."""

GCG = "gcg"
"""Name of the attack that searches a suffix for each query and prompt."""

NO_ATTACK = "no attack"
"""Name of the queries as they are."""

TEMPLATES: Mapping[str, Attack] = {
    attack.name: attack
    for attack in (
        Prefill(),
        PrefixInjection(),
        RefusalSuppression(),
        RolePlay(),
        Fiction(),
        UserOverride(),
        SystemOverride(),
        ManyShot(),
        Languages(),
        Leetspeak(),
        SpacedLetters(),
        Base64(),
        Rot13(),
    )
}
"""The built-in attacks that rewrite a query in one way, in the order of the table."""


def choose_attacks(choices: Sequence[AttackChoice]) -> tuple[tuple[Attack, ...], bool]:
    """The attacks that were chosen.

    Args:
        choices: for each the name of a template, `gcg`, `file.py:Class`, or an object or class
            with `apply`; none for all templates.

    Returns:
        The attacks that rewrite queries, and whether `gcg` is among the choices.

    Raises:
        DemurError: there is no such attack, one cannot be used, or one is given twice.
    """
    named = choices or tuple(TEMPLATES)
    attacks: list[Attack] = []
    for choice in named:
        if choice == GCG:
            continue
        attack = _attack(choice)
        if attack.name in {NO_ATTACK, GCG, *(one.name for one in attacks)}:
            raise DemurError(
                f"Two attacks are called {attack.name!r:.80}: leave one out, or rename it."
            )
        attacks.append(attack)
    if list(named).count(GCG) > 1:
        raise DemurError(f"The attack {GCG!r} is given twice: leave one out.")
    return tuple(attacks), GCG in named


def _attack(choice: AttackChoice) -> Attack:
    if not isinstance(choice, str):
        built_in = isinstance(choice, (OwnAttack, *map(type, TEMPLATES.values())))
        return choice if built_in and isinstance(choice, Attack) else own_attack(choice)
    if choice in TEMPLATES:
        return TEMPLATES[choice]
    if is_plugin_spec(choice):
        return own_attack(choice)
    names = (*TEMPLATES, GCG)
    raise DemurError(
        f"There is no attack {choice!r:.100}{did_you_mean(choice, names)}: choose "
        f"{', '.join(names)} or FILE.py:CLASS."
    )
