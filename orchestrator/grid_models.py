"""The parts of a grid that say what a victim is made from: weights, training, a user's own trained model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.checker import Checker, kind, show
from orchestrator.grid import DatasetEntry, ModelEntry, PretrainedWeights
from workers.victims.base import ArchitectureError
from workers.victims.recipe import Recipe
from workers.victims.saved import SUFFIX, fits, input_shape
from workers.victims.weights import IMAGENET, SUFFIXES, read_file

_HDF5 = b"\x89HDF\r\n\x1a\n"


def parse_train(checker: Checker, raw: Any, *, takes_weights: bool = True) -> dict[str, Any]:
    """Recipe options, and `weights` as `parse_weights` gives them."""
    if not isinstance(raw, dict):
        checker.problem(f"found {kind(raw)}; a mapping such as {{epochs: 5}} is allowed")
        return {}
    recipe = {key: value for key, value in raw.items() if key != "weights"}
    checker.options(Recipe, recipe, "train")
    if "weights" not in raw:
        return recipe
    with checker.at("weights"):
        if not takes_weights:
            checker.problem("this model takes no pretrained weights; the networks of keras.applications do")
        return {**recipe, "weights": parse_weights(checker, raw["weights"])}


def parse_weights(checker: Checker, raw: Any) -> PretrainedWeights | None:
    """What `weights:` names, the file read for its hash; None for null, or with the problem noted."""
    if raw is None:
        return None
    if raw == IMAGENET:
        return PretrainedWeights(location=IMAGENET)
    if not isinstance(raw, str) or not raw.endswith(SUFFIXES):
        checker.problem(
            f"found {show(raw)}; imagenet, null, or the path or URI of a .weights.h5 or .h5 file is allowed"
        )
        return None
    data = _read(checker, location := absolute(raw))
    if data is None:
        return None
    if not data.startswith(_HDF5):
        checker.problem(f"{raw} is not an HDF5 file, which weights are kept in")
    return PretrainedWeights(location=location, sha256=hashlib.sha256(data).hexdigest())


def parse_saved_model(checker: Checker, name: str, entry: dict[str, Any]) -> ModelEntry | None:
    """An entry with a `path` to a `.keras` file."""
    path, pixel_range, own = entry.pop("path"), entry.pop("pixel_range", None), entry.pop("train", None)
    for key in entry:
        with checker.at(key):
            checker.unknown(f"option of model {name}", key, ("path", "pixel_range", "train"))
    with checker.at("train"):
        train = {} if own is None else parse_train(checker, own, takes_weights=False)
        if train.get("fine_tune") == "none":
            checker.problem("fine_tune: none leaves nothing to train; leave train: out to use it as it is")
    if pixel_range is not None:
        with checker.at("pixel_range"):
            pixel_range = _pixel_range(checker, pixel_range)
    with checker.at("path"):
        if not isinstance(path, str) or not path.endswith(SUFFIX):
            checker.problem(f"found {show(path)}; the path or URI of a {SUFFIX} file is allowed")
            return None
        data = _read(checker, location := absolute(path))
        if data is None:
            return None
        try:
            takes = input_shape(data)
        except ArchitectureError as error:
            checker.problem(f"{path}: {error}")
            return None
    # [0, 1] is what None comes to once it has been checked, so it is the same victim.
    given = {"pixel_range": pixel_range} if pixel_range not in (None, [0.0, 1.0]) else {}
    return ModelEntry(
        name=name,
        path=location,
        identity={"sha256": hashlib.sha256(data).hexdigest()},
        options={"pixel_range": pixel_range},
        given=given,
        train=train,
        as_it_is=own is None,
        input_shape=takes,
    )


def check_images(
    checker: Checker,
    models: Sequence[ModelEntry],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Mapping[str, Any]],
) -> None:
    """Note every pair of a model and a dataset, not excluded, whose images the model cannot take."""
    for model in models:
        for dataset in datasets:
            pair = {"model": model.name, "dataset": dataset.name}
            if any(exclude.items() <= pair.items() for exclude in excludes):
                continue
            if dataset.shape and (why := misfit(model, dataset.shape)):
                with checker.at("models"):
                    checker.problem(
                        f"{model.name} {why}; those of {dataset.name} have "
                        f"{'×'.join(map(str, dataset.shape))} (exclude: [{{model: {model.name}, "
                        f"dataset: {dataset.name}}}] leaves them out)"
                    )


def misfit(model: ModelEntry, shape: tuple[int, int, int]) -> str:
    """Why a model cannot take images of this shape; "" where it can."""
    if min(shape[:2]) < model.min_size:
        return f"needs images of at least {model.min_size} pixels"
    if model.channels and shape[2] not in model.channels:
        return f"takes images of {' or '.join(map(str, model.channels))} channels"
    if model.input_shape and not fits(model.input_shape, shape):
        return f"takes images of {'×'.join(str(side or 'any') for side in model.input_shape)}"
    return ""


def absolute(location: str) -> str:
    """A path or URI as workers need it, who have other working directories."""
    return location if "://" in location else str(Path(location).expanduser().resolve())


def _read(checker: Checker, location: str) -> bytes | None:
    try:
        return read_file(location)
    except ArchitectureError as error:
        checker.problem(str(error))
        return None


def _pixel_range(checker: Checker, raw: Any) -> list[float] | None:
    if (
        isinstance(raw, list)
        and len(raw) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in raw)
        and -1e6 < raw[0] < raw[1] < 1e6
    ):
        return [float(end) for end in raw]
    checker.problem(f"found {show(raw)}; two numbers such as [0, 255], the lower first, are allowed")
    return None
