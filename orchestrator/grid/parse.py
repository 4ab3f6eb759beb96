"""From a YAML document to a `Grid`, collecting every problem on the way instead of stopping at one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import yaml

from orchestrator.errors import GridError, Problem
from orchestrator.grid.attacks import check_stored, parse_attack, transfer_warnings
from orchestrator.grid.checker import WORD, Checker, kind, show
from orchestrator.grid.datasets import parse_dataset
from orchestrator.grid.defences import check_defences, check_training, parse_defence
from orchestrator.grid.document import Document, Keys
from orchestrator.grid.entries import AttackEntry, Grid, Selector, options_text
from orchestrator.grid.epsilons import EpsilonParser
from orchestrator.grid.excludes import check_excludes, parse_exclude
from orchestrator.grid.models import check_images, parse_model, parse_train
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from workers.unit import label as with_options

_NOT_WRITTEN = ("warnings", "text", "python_path")
_KEYS = [name for name in Grid.model_fields if name not in _NOT_WRITTEN] + ["epsilons"]
_RESERVED_NAMES = ("victims",)  # the default cache of victims lies beside the sweeps

_T = TypeVar("_T")


def parse_grid(
    document: Document,
    source: str,
    *,
    default_name: str,
    python_path: tuple[str, ...],
    problems: list[Problem],
) -> Grid:
    """Check a document against everything the registries know. Raises GridError with every problem.

    Modules of factories are looked for in the folders of `python_path` first.
    """
    parser = _Parser(document, problems, python_path)
    grid = parser.grid(default_name)
    if parser.problems or grid is None:
        raise GridError(source, parser.problems)
    return grid


class _Parser(Checker):
    def grid(self, default_name: str) -> Grid | None:
        data = self.document.data
        if not isinstance(data, dict):
            self.problem(f"a grid is a mapping of keys such as models: and attacks:; found {kind(data)}")
            return None
        for key in data:
            if key not in _KEYS:
                with self.at(key):
                    self.unknown("key", key, _KEYS)
        for key in ("models", "datasets", "attacks"):
            if key not in data:
                self.problem(f"{key} is missing; a grid needs at least one")
        epsilons = EpsilonParser(self, data.get("pixel_range", [0, 1]))
        models = self._entries("models", lambda raw: parse_model(self, raw))
        datasets = self._entries("datasets", lambda raw: parse_dataset(self, raw))
        names = [dataset.name for dataset in datasets]
        shared = epsilons.shared(data.get("epsilons"), names)
        defences = self._entries("defences", lambda raw: parse_defence(self, raw, epsilons), ["none"])
        defended = self.broken("defences") or any(defence.at_inference for defence in defences)
        transfer = self._flag("transfer")
        found = self._entries(
            "attacks",
            lambda raw: parse_attack(
                self, raw, epsilons, shared, names, defended=defended, transfer=transfer
            ),
        )
        attacks = [attack for attack, _ in found]
        self._distinct("models", [(m.name, _key(m.factory, m.options, m.train, m.inference)) for m in models])
        self._distinct("datasets", names)
        self._distinct("attacks", [(a.name, a.norm, a.adaptive, _attack_key(a)) for a in attacks])
        self._distinct(
            "defences", [(d.name, *(_key(one.spec.factory, one.given) for one in d.each)) for d in defences]
        )
        self._readable("models", [(m.label, m.name, options_text(m.given), ()) for m in models])
        self._readable("datasets", [(d.label, d.name, "", ()) for d in datasets])
        self._readable("defences", [(d.label, d.spec.label, "", ()) for d in defences])
        self._readable(
            "attacks",
            [(a.label, a.name, a.shown, (a.norm, a.adaptive, a.options.get("targeted"))) for a in attacks],
        )
        with self.at("train"):
            train = parse_train(self, data.get("train", {}))
        whole = {
            "examples": self.whole_number("examples", 1000, least=1),
            "slice": self.whole_number("slice", 250, least=1),
            "attack_seed": self.whole_number("attack_seed", 0, least=0, most=2**31 - 1),
        }
        keep: int | Literal["all"] = "all"
        if data.get("keep") != "all":
            keep = self.whole_number("keep", 8, least=0, also='or "all"')
        seeds = self._seeds()
        self._distinct("seeds", seeds)
        name = self._name(data.get("name", default_name))
        excludes = self._excludes(epsilons)
        width = epsilons.pixel_range.width
        check_excludes(self, excludes, models, names, attacks, defences, seeds, width)
        check_images(self, models, datasets, list(excludes.values()))
        check_defences(self, defences, datasets, list(excludes.values()))
        check_training(self, models, defences, datasets, list(excludes.values()), train)
        stored = [(attack, images) for attack, images in found if images is not None]
        check_stored(self, stored, datasets, list(excludes.values()))
        if self.problems:
            return None
        return Grid(
            name=name,
            models=tuple(models),
            datasets=tuple(datasets),
            attacks=tuple(attacks),
            defences=tuple(defences),
            train=train,
            pixel_range=epsilons.pixel_range,
            keep=keep,
            seeds=tuple(seeds),
            transfer=transfer,
            exclude=tuple(excludes.values()),
            warnings=tuple(
                dict.fromkeys(
                    [
                        *epsilons.warnings,
                        *(m.warning for m in models if m.warning),
                        *transfer_warnings(data, attacks, len(models) * len(defences) * len(seeds)),
                    ]
                )
            ),
            text=yaml.safe_dump(data, sort_keys=False, allow_unicode=True),
            python_path=self.python_path,
            **whole,
        )

    def _flag(self, key: str) -> bool:
        raw = self.document.data.get(key, False)
        if not isinstance(raw, bool):
            with self.at(key):
                self.problem(f"found {show(raw)}; true or false is allowed")
        return raw is True

    def _items(self, key: str, default: list[Any] | None = None) -> list[tuple[Keys, Any]]:
        """The entries of a list, with their places; one lone entry may stand without its brackets."""
        raw = self.document.data.get(key, default)
        if raw is None and key not in self.document.data:
            return []
        if isinstance(raw, str | dict | int):
            return [((key,), raw)]
        with self.at(key):
            if not isinstance(raw, list):
                self.problem(f"found {kind(raw)}; a list is allowed")
                return []
            if not raw and default != []:
                self.problem("the list is empty; at least one entry is needed")
        return [((key, i), item) for i, item in enumerate(raw)]

    def _entries(
        self, key: str, parse: Callable[[Any], _T | None], default: list[Any] | None = None
    ) -> list[_T]:
        parsed = (self._each(parse, item) for item in self._items(key, default))
        return [entry for entry in parsed if entry is not None]

    def _each(self, parse: Callable[[Any], _T], item: tuple[Keys, Any]) -> _T:
        path, raw = item
        with self.at(*path):
            return parse(raw)

    def _excludes(self, epsilons: EpsilonParser) -> dict[Keys, Selector]:
        """By their places in the document."""
        excludes = {}
        for path, raw in self._items("exclude", []):
            with self.at(*path):
                if exclude := parse_exclude(self, raw, epsilons.pixel_range.width):
                    excludes[path] = exclude
        return excludes

    def _distinct(self, key: str, ids: list[Any]) -> None:
        with self.at(key):
            for i, one in enumerate(ids):
                if one in ids[:i]:
                    name = one[0] if isinstance(one, tuple) else one
                    self.problem(f'"{name}" stands twice with the same options')

    def _readable(self, key: str, entries: list[tuple[str, str, str, Any]]) -> None:
        """That no label stands for two entries: of each its label, name and options, and within what it is
        to be told from others."""
        called: dict[tuple[str, Any], list[str]] = {}
        for label, name, shown, within in entries:
            called.setdefault((label or with_options(name, shown), within), []).append(
                with_options(name, shown)
            )
        labels = {(label, within) for label, _, _, within in entries if label}
        with self.at(key):
            for (text, within), names in called.items():
                if (text, within) in labels and len(names) > 1:
                    both = " and ".join(names) if len(set(names)) > 1 else f"{names[0]} twice"
                    self.problem(f'label "{text}" stands for {both}; each needs one of its own')
            for label in dict.fromkeys(label for label, *_ in entries):
                if label in (WORST_CASE, WITH_TRANSFER):
                    self.problem(f'label "{label}" is what tables call all attacks together; choose another')

    def _seeds(self) -> list[int]:
        raw = self.document.data.get("seeds")
        if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
            return self._entries("seeds", self._seed, [0])
        # Elsewhere a lone entry may stand without brackets; here it is as often meant as a count.
        readings = f"[{raw}] for the seed {raw}"
        if raw:
            first = "0" if raw == 1 else "0, 1" if raw == 2 else "0, 1, 2" if raw == 3 else f"0, …, {raw - 1}"
            readings += f", [{first}] for {raw} seed{'' if raw == 1 else 's'}"
        with self.at("seeds"):
            self.problem(f"found {raw}; a list is allowed: {readings}")
        return []

    def _seed(self, raw: Any) -> int | None:
        if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**31:
            return raw
        self.problem(f"found {show(raw)}; a whole number, 0 to {2**31 - 1}, is allowed")
        return None

    def _name(self, raw: Any) -> str:
        if isinstance(raw, str) and WORD.fullmatch(raw) and raw not in _RESERVED_NAMES:
            return raw
        with self.at("name"):
            why = " (the cache of victims lies there)" if raw in _RESERVED_NAMES else ", and not a path"
            self.problem(f'found "{raw}"; one word of letters, digits, "_", "-", "." is allowed{why}')
        return ""


def _attack_key(attack: AttackEntry) -> str:
    # Of a file its content counts, wherever it lies.
    what = {"content": attack.identity["content"]} if attack.path else attack.options
    return _key(attack.factory, what)


def _key(*parts: Any) -> str:
    return repr([sorted(part.items()) if isinstance(part, Mapping) else part for part in parts])
