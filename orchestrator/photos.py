"""What `image` does: photographs of your own, attacked on a classifier, as a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.errors import UserError, did_you_mean
from orchestrator.grid.aliases import ALIASES
from orchestrator.grid.checker import option_problems
from orchestrator.grid.epsilons import too_wide
from orchestrator.grid.numbers import PixelRange, exact, number_text
from orchestrator.results.figures.page import styled
from orchestrator.results.figures.photo import Photo, Row, draw_photos
from orchestrator.results.text.robustness import number
from orchestrator.run.backends.quiet import stderr_to
from workers.attacks import REGISTRY, Stored
from workers.machine import available_cpus
from workers.storage import Folder
from workers.unit import label as with_options

if TYPE_CHECKING:
    from orchestrator.results.figures.page import Drawing
    from workers.photographs import Attacked

_NOTHING = ": nothing found"


def photo_figure(
    paths: Sequence[str],
    *,
    model: str,
    attack: str,
    epsilons: str,
    cache_dir: str,
    norm: str | None = None,
    options: Sequence[str] = (),
    model_options: Sequence[str] = (),
    pixel_range: tuple[float, float] = (0.0, 1.0),
    label: int | None = None,
    width: float | None = None,
) -> Drawing:
    """Attack photographs on a classifier at `epsilons` ("0.01, 0.1", in `pixel_range`), and draw what became
    of them. UserError for bad input, before TensorFlow is imported as far as it can be seen then."""
    scale = _pixel_range(pixel_range)
    config = _attack(attack, norm, _options("--set", options), scale)
    radii = _epsilons(epsilons, scale, config["norm"])
    own = _options("--model-set", model_options)
    for path in paths:
        if not os.path.isfile(os.path.expanduser(path)):
            raise UserError(f"no such photograph: {path}")
    with TemporaryDirectory() as folder, stderr_to(Path(folder) / "log"):
        from workers.runtime import set_up_tensorflow

        set_up_tensorflow(cpus=available_cpus(), gpus=None)
        from workers.photographs import PhotographError, attack_photographs, classifier, read_photograph
        from workers.victims.base import ArchitectureError, CacheError

        try:
            of = classifier(model, own, Folder.at(cache_dir))
            photographs = [read_photograph(path, of.shape) for path in paths]
            found = attack_photographs(
                of, photographs, config, [float(radius / scale.width) for radius in radii], label=label
            )
        except (PhotographError, ArchitectureError, CacheError, ValueError) as error:
            raise UserError(str(error)) from None
    height, wide, _ = of.shape
    kind = REGISTRY[attack]
    shown = {key: value for key, value in config.items() if key not in ("name", "norm")}
    called = with_options(attack, ", ".join(f"{key}={value}" for key, value in sorted(shown.items())))
    photos = []
    for one in found:
        before = one.photograph.size
        size = f"{before[0]}×{before[1]}"
        if before != (wide, height):
            size += f", resized to {wide}×{height}"
        rows = [
            Row(
                _epsilon(radius, scale) + (_NOTHING if kind.minimum_norm and _failed(one, k) else ""),
                one.images[k],
                one.after[k],
                f"{config['norm']} {number(one.distances[k], 0)}",
            )
            for k, radius in enumerate(radii)
        ]
        photos.append(Photo(f"{one.photograph.name} ({size})", one.photograph.image, one.before, rows))
    notes = [
        f"{of.name} under {called}, {config['norm']}; photographs are attacked at {wide}×{height} pixels"
    ]
    if label is not None:
        name = f" ({of.class_names[label]})" if label < len(of.class_names) else ""
        notes.append(
            f"the loss ascended is that of class {label}{name}, which was named: neither an untargeted "
            "attack on what the model answers nor one targeted at that class; it drives away from it"
        )
    elif targets := [one.target for one in found if one.target is not None]:
        names = (of.class_names[target] if of.class_names else str(target) for target in targets)
        notes.append(f"targeted, at {', '.join(names)}")
    elif kind.minimum_norm:
        notes.append("the nearest image that the model answers otherwise, where it lies within epsilon")
    else:
        notes.append("away from what the model answers to the clean image, with the whole budget spent")
    if any(_NOTHING in row.epsilon for photo in photos for row in photo.rows):
        notes.append(
            "nothing found: the attack has no image within epsilon that is answered as it wants; shown is "
            "where it ended, moved back to within epsilon"
        )
    if not of.class_names:
        notes.append("classes go by number: nobody says here what they are called")
    with styled():
        return draw_photos(photos, of.class_names, notes, width)


def _failed(one: Attacked, k: int) -> bool:
    """Whether a photograph is answered as before at its k-th epsilon, or not as the attack wants."""
    answer = one.after[k].label
    return answer == one.before.label if one.target is None else answer != one.target


def _pixel_range(given: tuple[float, float]) -> PixelRange:
    low, high = map(exact, given)
    if low >= high:
        raise UserError(f"--pixel-range: found {given[0]:g} {given[1]:g}; the lower end comes first")
    return PixelRange(low, high)


def _epsilons(text: str, scale: PixelRange, norm: str) -> list[Fraction]:
    found = []
    for part in text.split(","):
        try:
            radius = exact(part.strip())
        except ValueError as error:
            raise UserError(f"--epsilons: {error}; several are separated by commas") from None
        if radius < 0:
            raise UserError(f"--epsilons: found {part.strip()}; 0 or more is allowed")
        if norm == "linf" and radius > scale.width:
            said = too_wide(radius, scale, spelt="--pixel-range {} {}")
            raise UserError(f"--epsilons: epsilon {part.strip()} {said}")
        found.append(radius)
    return sorted(set(found))


def _epsilon(radius: Fraction, scale: PixelRange) -> str:
    text = f"epsilon {number_text(radius)}"
    if scale.width == 1:
        return text
    return f"{text} on {scale}, {number_text(radius / scale.width)} on [0, 1]"


def _options(flag: str, given: Sequence[str]) -> dict[str, Any]:
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f'{flag}: found "{text}"; KEY=VALUE is allowed, such as steps=20')
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f'{flag}: found "{text}", whose value is no YAML') from None
    return options


def _attack(name: str, norm: str | None, options: Mapping[str, Any], scale: PixelRange) -> dict[str, Any]:
    allowed = sorted(key for key, kind in REGISTRY.items() if kind is not Stored)
    if name not in allowed:
        near = did_you_mean(name, allowed, ALIASES)
        raise UserError(f'--attack: found "{name}"; {near}allowed: {", ".join(allowed)}')
    kind = REGISTRY[name]
    if norm is not None and norm not in kind.NORMS:
        raise UserError(f'--norm: found "{norm}"; of {name} these are allowed: {", ".join(kind.NORMS)}')
    pixels = {
        key: float(exact(value) / scale.width) if key in kind.PIXEL_OPTIONS and value is not None else value
        for key, value in options.items()
    }
    if problems := option_problems(kind, pixels):
        raise UserError(f"--set: attack {name}: {'; '.join(problems)}")
    return {"name": name, "norm": norm or kind.NORMS[0], **pixels}
