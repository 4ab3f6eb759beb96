"""The defences a victim can carry: what a grid's `defences:` may name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as options_dataclass

from workers.inference import carry
from workers.unit import NO_DEFENCE, DefenceSpec

if TYPE_CHECKING:
    import keras


@options_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoOptions:
    """Of a defence that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """A defence by name; `version` is raised whenever it changes results.

    `wrap(model, options)` takes a network, and an instance of `options`, and returns the defended one: what
    happens at inference time is part of the victim, so that gradients are taken through it.
    """

    name: str
    version: int
    options: type = NoOptions
    wrap: Callable[[keras.Model, Any], keras.Model] = lambda model, options: model


def _registry(*defences: Defence) -> dict[str, Defence]:
    return {defence.name: defence for defence in defences}


DEFENCES: dict[str, Defence] = _registry(
    Defence(name=NO_DEFENCE.name, version=NO_DEFENCE.version),
)


def defend(model: keras.Model, spec: DefenceSpec) -> keras.Model:
    """A network as its victim answers with it, called as the network is.

    ValueError for a defence that is not registered.
    """
    if spec.name not in DEFENCES:
        raise ValueError(f'unknown defence "{spec.name}"; allowed: {", ".join(sorted(DEFENCES))}')
    defence = DEFENCES[spec.name]
    return carry(model, defence.wrap(model, defence.options(**spec.options)))
