"""The entries of a grid's `models:`, and what victims are made from: weights, training, own models."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, cast, get_args

from orchestrator.grid.checker import Checker, kind, show
from orchestrator.grid.entries import DatasetEntry, ModelEntry, Selector
from workers.recipe import Recipe
from workers.storage import absolute
from workers.unit import Inference, Weights
from workers.victims.architectures import ARCHITECTURES
from workers.victims.base import ArchitectureError
from workers.victims.pixels import NORMALISATIONS, name_of
from workers.victims.saved import SUFFIX, describe_saved
from workers.victims.weights import IMAGENET, SUFFIXES, read_file

_OF_SAVED = ("label", "path", "pixel_range", "normalise", "inference", "train")
_LARGEST = 2.0  # of a mean or a standard deviation of pixels in [0, 1]: a larger one is of another scale
_HDF5 = b"\x89HDF\r\n\x1a\n"


def parse_model(check: Checker, raw: Any) -> ModelEntry | None:
    """A registered name, a user's own constructor or trained model; None, with the problems noted, for all
    else."""
    entry = check.named(raw, "model", ARCHITECTURES, own=("factory", "path"))
    if entry is None:
        return None
    name, label = entry.pop("name"), check.label(entry)
    if "path" in entry:
        return parse_saved_model(check, name, label, entry)
    architecture = None if "factory" in entry else ARCHITECTURES[name]
    takes_weights = architecture is not None and architecture.load_pretrained is not None
    own_train = entry.pop("train", {})
    as_it_is = architecture is None and own_train is False  # its constructor has given it its weights
    with check.at("train"):
        train = {} if as_it_is else parse_train(check, own_train, takes_weights=takes_weights)
    if architecture is None:
        factory, identity = check.factory(entry)
        inference = _inference(check, entry.pop("inference", None))
        options = check.plain_options(entry)
        return ModelEntry(
            name=name,
            label=label,
            factory=factory,
            identity=identity,
            options=options,
            given={**options, **_said(inference)},
            train=train,
            inference=inference,
            as_it_is=as_it_is,
        )
    if takes_weights and "weights" in entry:
        with check.at("weights"):
            train["weights"] = parse_weights(check, entry.pop("weights"))
    checked = check.options(architecture.options, entry, f"model {name}")
    if checked is None:
        return None
    options, given = checked
    options.pop("weights", None)  # what it starts from may also be the grid's or a dataset's to say
    return ModelEntry(
        name=name,
        label=label,
        identity={"version": architecture.version},
        options=options,
        given=given,
        train=train,
        takes_weights=takes_weights,
        min_size=architecture.min_size,
        channels=architecture.channels,
    )


def parse_train(check: Checker, raw: Any, *, takes_weights: bool = True) -> dict[str, Any]:
    """Recipe options, and `weights` as `parse_weights` gives them."""
    if not isinstance(raw, dict):
        check.problem(f"found {kind(raw)}; a mapping such as {{epochs: 5}} is allowed")
        return {}
    recipe = {key: value for key, value in raw.items() if key != "weights"}
    check.options(Recipe, recipe, "train")
    if "weights" not in raw:
        return recipe
    with check.at("weights"):
        if not takes_weights:
            check.problem("this model takes no pretrained weights; the networks of keras.applications do")
        return {**recipe, "weights": parse_weights(check, raw["weights"])}


def parse_weights(check: Checker, raw: Any) -> Weights | None:
    """What `weights:` names, the file read for its hash; None for null, or with the problem noted."""
    if raw is None:
        return None
    if raw == IMAGENET:
        return Weights(location=IMAGENET)
    if not isinstance(raw, str) or not raw.endswith(SUFFIXES):
        check.problem(
            f"found {show(raw)}; imagenet, null, or the path or URI of a .weights.h5 or .h5 file is allowed"
        )
        return None
    data = _read(check, location := absolute(raw))
    if data is None:
        return None
    if not data.startswith(_HDF5):
        check.problem(f"{raw} is not an HDF5 file, which weights are kept in")
    return Weights(location=location, sha256=hashlib.sha256(data).hexdigest())


def parse_saved_model(check: Checker, name: str, label: str, entry: dict[str, Any]) -> ModelEntry | None:
    """An entry with a `path` to a `.keras` file."""
    path, own = entry.pop("path"), entry.pop("train", False)
    pixel_range, normalise = entry.pop("pixel_range", None), entry.pop("normalise", None)
    inference = _inference(check, entry.pop("inference", None))
    as_it_is = own is None or own is False
    for key in entry:
        with check.at(key):
            check.unknown(f"option of model {name}", key, _OF_SAVED)
    with check.at("train"):
        train = {} if as_it_is else parse_train(check, own, takes_weights=False)
        if train.get("fine_tune") == "none":
            check.problem("fine_tune: none leaves nothing to train; leave train: out to use it as it is")
    if pixel_range is not None:
        with check.at("pixel_range"):
            pixel_range = _pixel_range(check, pixel_range)
    if normalise is not None:
        with check.at("normalise"):
            if pixel_range is not None:
                check.problem("found beside pixel_range:; one of the two is allowed")
            normalise = _normalise(check, normalise)
    with check.at("path"):
        if not isinstance(path, str) or not path.endswith(SUFFIX):
            check.problem(f"found {show(path)}; the path or URI of a {SUFFIX} file is allowed")
            return None
        data = _read(check, location := absolute(path))
        if data is None:
            return None
        try:
            saved = describe_saved(data)
        except ArchitectureError as error:
            check.problem(f"{path}: {error}")
            return None
    # [0, 1] is what None comes to once it has been checked, so it is the same victim.
    given = {"pixel_range": pixel_range} if pixel_range not in (None, [0.0, 1.0]) else {}
    if normalise:
        given["normalise"] = name_of(**normalise) or normalise
    asked = "as_called" if saved.training else "off"
    if inference != asked:
        given |= _said(inference)
    return ModelEntry(
        name=name,
        label=label,
        path=location,
        identity={"sha256": hashlib.sha256(data).hexdigest()},
        options={"pixel_range": pixel_range, "normalise": normalise},
        given=given,
        train=train,
        inference=inference,
        as_it_is=as_it_is,
        input_shape=saved.input_shape,
        warning=_in_training(name, saved.training, inference),
    )


def check_images(
    check: Checker,
    models: Sequence[ModelEntry],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Selector],
) -> None:
    """Note every pair of a model and a dataset, not excluded, whose images the model cannot take."""
    for model in models:
        for dataset in datasets:
            if any(exclude.covers(model=model.name, dataset=dataset.name) for exclude in excludes):
                continue
            if dataset.shape and (why := model.misfit(dataset.name, dataset.shape)):
                with check.at("models"):
                    check.problem(
                        f"{why} (exclude: [{{model: {model.name}, dataset: {dataset.name}}}] leaves them out)"
                    )


def _read(check: Checker, location: str) -> bytes | None:
    try:
        return read_file(location)
    except ArchitectureError as error:
        check.problem(str(error))
        return None


def _pixel_range(check: Checker, raw: Any) -> list[float] | None:
    if (
        isinstance(raw, list)
        and len(raw) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in raw)
        and -1e6 < raw[0] < raw[1] < 1e6
    ):
        return [float(end) for end in raw]
    check.problem(f"found {show(raw)}; two numbers such as [0, 255], the lower first, are allowed")
    return None


def _normalise(check: Checker, raw: Any) -> dict[str, list[float]] | None:
    """Mean and standard deviation on the [0, 1] scale, a number for all channels or one for each."""
    if isinstance(raw, str) and raw in NORMALISATIONS:
        return {key: list(values) for key, values in NORMALISATIONS[raw]._asdict().items()}
    if isinstance(raw, dict) and set(raw) == {"mean", "std"}:
        mean, std = (_numbers(raw[key]) for key in ("mean", "std"))
        if mean and std and min(std) > 0 and len({len(mean), len(std)} - {1}) < 2:
            if max(map(abs, (*mean, *std))) > _LARGEST:
                check.problem(f"found {show(raw)}; for pixels in [0, 1]: divide those of [0, 255] by 255")
                return None
            return {"mean": mean, "std": std}
    check.problem(
        f"found {show(raw)}; {', '.join(NORMALISATIONS)} or {{mean: …, std: …}}, of pixels in [0, 1], is "
        "allowed, each a number or a list with one for each channel, std above 0"
    )
    return None


def _numbers(raw: Any) -> list[float] | None:
    values = raw if isinstance(raw, list) else [raw]
    if not values or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return None
    return [float(one) for one in values] if all(abs(one) < math.inf for one in values) else None


def _inference(check: Checker, raw: Any) -> Inference | None:
    allowed = get_args(Inference)
    if raw is None or raw in allowed:
        return cast("Inference | None", raw)
    with check.at("inference"):
        # YAML reads a bare `off` as false.
        if raw is False:
            return "off"
        check.unknown("inference", raw, allowed)
    return None


def _said(inference: Inference | None) -> dict[str, str]:
    return {"inference": inference} if inference else {}


def _in_training(name: str, layers: Sequence[str], inference: Inference | None) -> str:
    """What to tell a person of layers that are called with training=True; "" where there are none."""
    if not layers:
        return ""
    shown = f"{', '.join(layers[:3])}{', …' if len(layers) > 3 else ''}"
    what = f"{name} calls {shown} with training=True"
    if inference == "off":
        return f"{what}: switched off, as inference: off says"
    return (
        f"{what}: measured like that, with whatever it does to later layers; inference: off switches it off"
    )
