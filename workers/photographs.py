"""A classifier's answers to photographs, before and after an attack at several epsilons."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from workers.attacks import build
from workers.datasets import DATASETS
from workers.datasets.base import scaled
from workers.datasets.classes import CLASS_NAMES
from workers.datasets.images import LARGEST, too_large
from workers.norms import NORMS
from workers.storage import Folder
from workers.unit import ModelSpec, Weights
from workers.victims.applications import TABLE, preprocess
from workers.victims.architectures import build_model
from workers.victims.cache import VictimCache
from workers.victims.manifest import Manifest
from workers.victims.weights import imagenet_network

if TYPE_CHECKING:
    import keras

_INDEX = "imagenet_class_index.json"


class PhotographError(Exception):
    """A photograph or a classifier that cannot be had; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model of images (N, H, W, C) in [0, 1] to logits, and what its classes are called."""

    name: str
    model: Callable[..., Any]
    shape: tuple[int, int, int]  # (H, W, C)
    class_names: tuple[str, ...]  # empty: nobody says


class Answer(NamedTuple):
    label: int
    confidence: float  # its softmax probability


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph as a classifier takes it."""

    name: str
    size: tuple[int, int]  # (W, H) of the file
    image: NDArray[np.float32]  # (H, W, C) in [0, 1]


@dataclass(frozen=True, slots=True)
class Attacked:
    """What became of a photograph at E epsilons."""

    photograph: Photograph
    before: Answer
    images: NDArray[np.float32]  # (E, H, W, C) in [0, 1]
    after: tuple[Answer, ...]  # (E,)
    distances: tuple[float, ...]  # (E,), in the attack's norm
    target: int | None  # that a targeted attack was to reach


def read_photograph(path: str, shape: tuple[int, int, int]) -> Photograph:
    """A photograph of any size, turned as its EXIF says, resized to (H, W) whatever its proportions, smoothed
    when it shrinks; grey for a classifier of one channel. PhotographError for what is none."""
    height, width, channels = shape
    try:
        with Image.open(Path(path).expanduser()) as opened:
            if math.prod(opened.size) > LARGEST:
                raise PhotographError(f"{path} {too_large(opened.size)}")
            whole = ImageOps.exif_transpose(opened)
            image = whole.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no image"
        if isinstance(error, Image.DecompressionBombError):
            reason = str(error)
        raise PhotographError(f"cannot read {path}: {reason}") from None
    if (small := image).size != (width, height):
        small = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = scaled(np.asarray(small, np.uint8)).reshape(shape)
    return Photograph(Path(path).name, image.size, pixels)


def classifier(name: str, options: Mapping[str, Any], cache: Folder) -> Classifier:
    """A network of `keras.applications` with its ImageNet weights and top, by its name; or a victim of the
    cache, by its id or the beginning of it.

    PhotographError for a name that is neither, or is the beginning of several; ArchitectureError and
    CacheError as loading raises them.
    """
    if name in TABLE:
        return _imagenet(name, options)
    if options:
        raise PhotographError(f"options of the model are those of an ImageNet classifier, and {name} is none")
    victims = sorted({cache.relative(file.path).partition("/")[0] for file in cache.files(recursive=True)})
    found = [victim for victim in victims if victim == name] or [
        victim for victim in victims if victim.startswith(name)
    ]
    if len(found) != 1:
        there = ", ".join(found or victims) or "none"
        what = "is the beginning of several victims" if found else "is no victim of the cache"
        raise PhotographError(
            f'--model: "{name}" {what}: {there}; or an ImageNet classifier, by its name as of list models'
        )
    manifest = VictimCache(cache).find(found[0])
    if manifest is None:
        raise PhotographError(f"--model: the cache has no whole weights of {found[0]}")
    return _victim(cache, manifest)


def attack_photographs(
    of: Classifier,
    photographs: Sequence[Photograph],
    config: Mapping[str, Any],
    epsilons: Sequence[float],
    *,
    label: int | None = None,
    seed: int = 0,
) -> list[Attacked]:
    """Attack photographs at every epsilon ([0, 1] scale), spending the whole budget: of an attack with one,
    the iterate of highest loss.

    The loss is that of the classifier's own answer; or of `label`, whatever it answers, which is neither an
    untargeted attack nor one that is targeted at it: it drives away from that class. PhotographError for a
    label that is no class, or with an attack that looks for the nearest image.
    """
    images = np.stack([photograph.image for photograph in photographs])
    logits = _logits(of, images)
    answers = _answers(logits)
    classes = logits.shape[1]
    attack: Any = build(dict(config))
    if label is not None:
        if not 0 <= label < classes:
            there = f"0 to {classes - 1} are the classes of {of.name}"
            raise PhotographError(f"--label: found {label}; {there}")
        if attack.minimum_norm or getattr(attack, "targeted", False):
            raise PhotographError("--label needs an attack with a budget that is not targeted, such as fgsm")
    labels = np.array([answer.label if label is None else label for answer in answers], np.int64)
    result = attack(
        of.model,
        images,
        labels,
        epsilons,
        seed=seed,
        clean_correct=np.ones(len(images), bool),
        choose="strongest",
    )
    found = []
    for n, photograph in enumerate(photographs):
        changed = np.asarray(result.images[:, n], np.float32)
        distance = NORMS[attack.norm].distance(np.stack([photograph.image] * len(changed)), changed)
        found.append(
            Attacked(
                photograph,
                answers[n],
                changed,
                tuple(_answers(_logits(of, changed))),
                tuple(float(one) for one in distance),
                None if result.targets is None else int(result.targets[n]),
            )
        )
    return found


def _logits(of: Classifier, images: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(of.model(images), np.float64)


def _answers(logits: NDArray[np.float64]) -> list[Answer]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    return [Answer(int(row.argmax()), float(row.max())) for row in shares]


def _imagenet(name: str, options: Mapping[str, Any]) -> Classifier:
    import keras

    constructor = getattr(keras.applications, TABLE[name].constructor)
    try:
        network = imagenet_network(
            lambda: constructor(weights="imagenet", classifier_activation=None, **options)
        )
    except TypeError as error:
        raise PhotographError(f"options of {name}: {error}") from None
    height, width, _ = network.input_shape[1:]
    inputs = keras.Input((height, width, 3))
    model = keras.Model(inputs, network(preprocess(inputs, TABLE[name].preprocessing)))
    return Classifier(f"{name} (ImageNet)", _off(model), (height, width, 3), _imagenet_names())


def _imagenet_names() -> tuple[str, ...]:
    """As Keras' own file says, where it is there; it is not worth a failure."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    try:
        index = json.loads((home / "models" / _INDEX).read_text("utf-8"))
        return tuple(index[str(label)][1].replace("_", " ") for label in range(len(index)))
    except (OSError, ValueError, KeyError, IndexError):
        return ()


def _victim(cache: Folder, manifest: Manifest) -> Classifier:
    data, model = manifest.dataset, dict(manifest.model)
    known = DATASETS.get(str(data.get("name")))
    shape = tuple(data.get("shape") or (known.info.shape if known else ()))
    classes = data.get("classes") or (known.info.classes if known else None)
    if len(shape) != 3 or classes is None:
        raise PhotographError(
            f"{manifest.victim_id} was trained by an earlier version, which did not say which images it takes"
        )
    if "factory" in model:
        raise PhotographError(
            f"{manifest.victim_id} has a constructor of your own: robustsweep.attack takes its model as it is"
        )
    weights = model.pop("weights", None)
    spec = ModelSpec(**model, weights=Weights(**weights) if weights else None)
    height, width, channels = shape
    built = build_model(spec, (height, width, channels), classes, pretrained=False)
    VictimCache(cache).load_into(built, manifest)
    names = tuple(data.get("class_names") or CLASS_NAMES.get(str(data.get("name")), ()))
    return Classifier(manifest.victim_id, _off(built), (height, width, channels), names)


def _off(model: keras.Model) -> Callable[..., Any]:
    """A model called with its layers in inference mode, as a victim is."""

    def call(images: Any) -> Any:
        return model(images, training=False)

    return call
