"""Other names: each leads to one registered name, and none stands for two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import did_you_mean, nearest, squeeze
from orchestrator.grid.aliases import ALIASES
from workers.attacks import REGISTRY
from workers.datasets import DATASETS
from workers.defences import DEFENCES
from workers.victims.architectures import ARCHITECTURES

NAMES = [*REGISTRY, *DEFENCES, *DATASETS, *ARCHITECTURES]


def test_every_alias_leads_to_a_registered_name_and_is_none_itself() -> None:
    assert set(ALIASES.values()) <= set(NAMES)
    assert not ALIASES.keys() & {squeeze(name) for name in NAMES}
    assert len({squeeze(name) for name in NAMES}) == len(NAMES)


@given(st.sampled_from(NAMES), st.data())
def test_a_name_is_known_however_it_is_spelt(name: str, data: st.DataObject) -> None:
    """In any case, with "-", "_", spaces or nothing between any of its letters."""
    letters = [letter for letter in name if letter != "_"]
    spelt = "".join(
        (letter.upper() if data.draw(st.booleans()) else letter)
        + data.draw(st.sampled_from(["", "", "", "-", "_", " "]))
        for letter in letters
    )
    assert nearest(spelt, NAMES) == name


@given(st.sampled_from(sorted(ALIASES)), st.sets(st.sampled_from(NAMES)))
def test_an_alias_suggests_only_what_is_allowed(alias: str, allowed: set[str]) -> None:
    found = nearest(alias, allowed, ALIASES)
    assert found in allowed or found is None
    if ALIASES[alias] in allowed:
        assert found == ALIASES[alias]


def test_what_is_far_from_everything_has_no_suggestion() -> None:
    assert did_you_mean("qqq", NAMES, ALIASES) == ""
    assert did_you_mean("fgms", NAMES, ALIASES) == 'did you mean "fgsm"? '
