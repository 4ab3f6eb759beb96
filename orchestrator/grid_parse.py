"""From a YAML document to a `Grid`, collecting every problem on the way instead of stopping at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import yaml

from orchestrator.checker import WORD, Checker, kind, show
from orchestrator.errors import GridError, Problem
from orchestrator.factories import fingerprint
from orchestrator.grid import NORMS, AttackEntry, DatasetEntry, EpsilonList, Grid, ModelEntry
from orchestrator.grid_datasets import parse_dataset
from orchestrator.grid_epsilons import EpsilonParser
from orchestrator.grid_exclude import check_excludes, parse_exclude
from orchestrator.grid_models import check_images, parse_saved_model, parse_train, parse_weights
from orchestrator.grid_stored import check_stored, parse_stored
from orchestrator.yamlfile import Document, Keys
from workers.attacks import REGISTRY as ATTACKS
from workers.attacks import Stored
from workers.attacks.stored_images import StoredImages
from workers.defences import DEFENCES
from workers.victims.architectures import ARCHITECTURES

_KEYS = [name for name in Grid.model_fields if name not in ("warnings", "text")] + ["epsilons"]
_RESERVED_NAMES = ("victims",)  # the default cache of victims lies beside the sweeps

_T = TypeVar("_T")


def parse_grid(document: Document, source: str, *, default_name: str, problems: list[Problem]) -> Grid:
    """Check a document against everything the registries know. Raises GridError with every problem."""
    parser = _Parser(document, problems)
    grid = parser.grid(default_name)
    if parser.problems or grid is None:
        raise GridError(source, parser.problems)
    return grid


class _Parser(Checker):
    # -- the whole ----------------------------------------------------------------------------------------

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
        self.epsilons = EpsilonParser(self, data.get("pixel_range", [0, 1]))
        models = self._entries("models", self._model)
        datasets = self._entries("datasets", self._dataset)
        shared = self.epsilons.shared(data.get("epsilons"), [d.name for d in datasets])
        self._stored: list[tuple[AttackEntry, StoredImages]] = []
        attacks = self._entries("attacks", lambda raw: self._attack(raw, shared, datasets))
        defences = self._entries("defences", self._defence, ["none"])
        self._distinct("models", [(m.name, _key(m.factory, m.options, m.train)) for m in models])
        self._distinct("datasets", [d.name for d in datasets])
        self._distinct("attacks", [(a.name, a.norm, a.adaptive, _attack_key(a)) for a in attacks])
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
        seeds = self._entries("seeds", self._seed, [0])
        self._distinct("seeds", seeds)
        name = self._name(data.get("name", default_name))
        exclude = {
            path: e
            for path, raw in self._items("exclude", [])
            if (
                e := self._each(
                    lambda r: parse_exclude(self, r, self.epsilons.pixel_range.width), (path, raw)
                )
            )
        }
        check_excludes(self, exclude, models, datasets, attacks, defences, seeds)
        check_images(self, models, datasets, list(exclude.values()))
        check_stored(self, self._stored, datasets, list(exclude.values()))
        if self.problems:
            return None
        return Grid(
            name=name,
            models=tuple(models),
            datasets=tuple(datasets),
            attacks=tuple(attacks),
            defences=tuple(defences),
            train=train,
            pixel_range=self.epsilons.pixel_range,
            keep=keep,
            seeds=tuple(seeds),
            exclude=tuple(exclude.values()),
            warnings=tuple(dict.fromkeys(self.epsilons.warnings)),
            text=yaml.safe_dump(data, sort_keys=False, allow_unicode=True),
            **whole,
        )

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

    def _distinct(self, key: str, ids: list[Any]) -> None:
        with self.at(key):
            for i, one in enumerate(ids):
                if one in ids[:i]:
                    name = one[0] if isinstance(one, tuple) else one
                    self.problem(f'"{name}" stands twice with the same options')

    # -- entries ------------------------------------------------------------------------------------------

    def _entry(
        self, raw: Any, what: str, allowed: Iterable[str], *, own: tuple[str, ...] = ("factory",)
    ) -> dict[str, Any] | None:
        """A name, or a mapping with one; None, with the problem noted, for anything else."""
        if isinstance(raw, str) and ":" in raw and "/" not in raw:
            raw = {"name": raw.partition(":")[2], "factory": raw}
        entry = {"name": raw} if isinstance(raw, str) else raw
        if not isinstance(entry, dict):
            self.problem(f"found {kind(raw)}; a name, or a mapping with name: and options, is allowed")
            return None
        name = entry.get("name")
        if not isinstance(name, str):
            self.problem(f"a {what} needs a name; allowed: {', '.join(sorted(allowed))}")
            return None
        if not WORD.fullmatch(name):
            more = ""
            if "/" in name or name.endswith((".keras", ".npz", ".h5")):
                more = "; it looks like a path, and a name is one word"
            self.problem(f'"{name}" is not a {what} name; allowed: {", ".join(sorted(allowed))}{more}')
            return None
        if not any(key in entry for key in own) and name not in allowed:
            self.unknown(what, name, allowed)
            return None
        return dict(entry)

    def _factory(self, entry: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        factory = entry.pop("factory", None)
        if factory is None:
            return None, {}
        with self.at("factory"):
            try:
                return str(factory), fingerprint(str(factory))
            except ValueError as error:
                self.problem(str(error))
                return str(factory), {}

    def _model(self, raw: Any) -> ModelEntry | None:
        entry = self._entry(raw, "model", ARCHITECTURES, own=("factory", "path"))
        if entry is None:
            return None
        name = entry.pop("name")
        if "path" in entry:
            return parse_saved_model(self, name, entry)
        architecture = None if "factory" in entry else ARCHITECTURES[name]
        takes_weights = architecture is not None and architecture.load_pretrained is not None
        with self.at("train"):
            train = parse_train(self, entry.pop("train", {}), takes_weights=takes_weights)
        if architecture is None:
            factory, identity = self._factory(entry)
            options = self.plain_options(entry)
            return ModelEntry(
                name=name, factory=factory, identity=identity, options=options, given=options, train=train
            )
        if takes_weights and "weights" in entry:
            with self.at("weights"):
                train["weights"] = parse_weights(self, entry.pop("weights"))
        checked = self.options(architecture.options, entry, f"model {name}")
        if checked is None:
            return None
        options, given = checked
        return ModelEntry(
            name=name,
            identity={"version": architecture.version},
            options=options,
            given=given,
            train=train,
            takes_weights=takes_weights,
            min_size=architecture.min_size,
            channels=architecture.channels,
        )

    def _dataset(self, raw: Any) -> DatasetEntry | None:
        return parse_dataset(self, raw)

    def _defence(self, raw: Any) -> dict[str, Any] | None:
        entry = self._entry("none" if raw is None else raw, "defence", DEFENCES)
        if entry is None:
            return None
        name = entry.pop("name")
        for key in entry:
            with self.at(key):
                self.problem(f'unknown option "{key}" of defence {name}; it has none')
        return {"name": name, "version": DEFENCES[name].version} if name in DEFENCES else None

    def _attack(
        self, raw: Any, shared: Mapping[str, Mapping[str, EpsilonList]], datasets: list[DatasetEntry]
    ) -> AttackEntry | None:
        entry = self._entry(raw, "attack", ATTACKS)
        if entry is None:
            return None
        name = entry.pop("name")
        names = [dataset.name for dataset in datasets]
        factory, identity = self._factory(entry)
        attack = None if factory else ATTACKS[name]
        norms = attack.NORMS if attack else NORMS
        norm = entry.pop("norm", norms[0])
        if norm not in norms:
            with self.at("norm"):
                self.unknown(f"norm of {name}", norm, norms)
            norm = norms[0]
        own = entry.pop("epsilons", None)
        with self.at("epsilons"):
            epsilons = (
                dict(self.epsilons.by_dataset(own, norm, names))
                if own is not None
                else dict(shared.get(norm, {}))
            )
        adaptive = entry.pop("adaptive", True)
        if adaptive is not True:
            with self.at("adaptive"):
                # Without a defence there is no undefended network to take gradients of instead.
                self.problem(
                    f"found {adaptive!r}; an oblivious evaluation needs a defence, and there is none yet"
                )
        for missing in [d for d in names if d not in epsilons]:
            if own is not None or not self.broken("epsilons"):
                self.problem(f"no {norm} epsilons for {name} on {missing}: give epsilons: {{{norm}: [...]}}")
        path, images = None, None
        if factory or attack is None:
            options = given = self.plain_options(entry)
        elif attack is Stored:
            if (file := parse_stored(self, entry)) is None:
                return None
            path, images = file
            options, given = {"path": images.path}, {}
            identity = {"version": attack.VERSION, "content": images.content}
        else:
            for key in attack.PIXEL_OPTIONS & entry.keys():
                if entry[key] is not None:
                    with self.at(key):
                        entry[key] = self.epsilons.pixels(entry[key])
            checked = self.options(attack, entry, f"attack {name}", hidden=("norm",))
            if checked is None:
                return None
            options, given = checked
            identity = {"version": attack.VERSION}
        parsed = AttackEntry(
            name=name,
            norm=norm,
            factory=factory,
            path=path,
            identity=identity,
            options=options,
            given=given,
            randomised=attack.randomised if attack else True,
            adaptive=True,
            epsilons=epsilons,
        )
        if images is not None:
            self._stored.append((parsed, images))
        return parsed

    def _seed(self, raw: Any) -> int | None:
        if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**31:
            return raw
        self.problem(f"found {show(raw)}; a whole number, 0 to {2**31 - 1}, is allowed")
        return None

    # -- what needs the rest ------------------------------------------------------------------------------

    def _name(self, raw: Any) -> str:
        if isinstance(raw, str) and WORD.fullmatch(raw) and raw not in _RESERVED_NAMES:
            return raw
        with self.at("name"):
            why = " (the cache of victims lies there)" if raw in _RESERVED_NAMES else ", and not a path"
            self.problem(f'found "{raw}"; one word of letters, digits, "_", "-", "." is allowed{why}')
        return ""


def _attack_key(attack: AttackEntry) -> str:
    # Of a file its content counts, wherever it lies.
    return _key(attack.factory, attack.identity if attack.path else {}, {} if attack.path else attack.options)


def _key(*parts: Any) -> str:
    return repr([sorted(part.items()) if isinstance(part, Mapping) else part for part in parts])
