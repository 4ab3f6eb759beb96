"""Doing again what was cut off because files that it had listed were merged into others, and removed."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

_TRIES = 5
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Listed(Protocol):
    """What was listed at some moment."""

    def gone(self) -> bool:
        """Whether some of it is not there any more."""


@dataclass
class _Try:
    listed: list[Listed] = field(default_factory=list)
    last: bool = False


_now: ContextVar[_Try | None] = ContextVar("_now", default=None)


def note(listed: Listed) -> None:
    """What is done now goes by this listing."""
    if now := _now.get():
        now.listed.append(listed)


def once() -> None:
    """From here on what is done now cannot be done again: some of it is out."""
    if now := _now.get():
        now.last = True


def outdated() -> bool:
    """Whether what is done now goes by a listing that does not hold any more."""
    return (now := _now.get()) is not None and _outdated(now)


def due() -> bool:
    """Whether it will be done again for that, if it fails now."""
    return (now := _now.get()) is not None and not now.last and _outdated(now)


def again(call: Callable[_P, _T], *, but: tuple[type[Exception], ...] = ()) -> Callable[_P, _T]:
    """`call`, called anew where it raises (not one of `but`) and files that it had listed are gone."""

    @wraps(call)
    def run(*arguments: _P.args, **options: _P.kwargs) -> _T:
        for left in reversed(range(_TRIES)):
            token = _now.set(_Try(last=not left))
            try:
                return call(*arguments, **options)
            except but:
                raise
            except Exception:
                if not due():
                    raise
            finally:
                _now.reset(token)
        raise AssertionError("unreachable")

    return run


def _outdated(now: _Try) -> bool:
    try:
        return any(one.gone() for one in now.listed)
    except OSError:
        return False
