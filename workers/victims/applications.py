"""Every network of `keras.applications`, by one table.

Images of any size and of one or three channels come in; the resizing, the repetition of a grey channel and
the preprocessing that the network was designed for are layers of the victim, so that gradients reach the
image's own pixels through them.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass as options_dataclass

from workers.victims.base import BACKBONE, OPTIONS_CONFIG, Architecture, Shape
from workers.victims.pixels import NORMALISATIONS
from workers.victims.weights import IMAGENET, imagenet_network, load_weights_file

if TYPE_CHECKING:
    import keras

Preprocessing = Literal["tf", "caffe", "torch", "none"]

_MEAN, _STD = NORMALISATIONS["imagenet"]


class Application(NamedTuple):
    """A constructor of `keras.applications`.

    `preprocessing` is the `mode` of Keras' `preprocess_input`; "none": the network holds its own, and takes
    [0, 255]. `least` is the least height and width in pixels that Keras allows.
    """

    constructor: str
    preprocessing: Preprocessing
    least: int


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class _Options:
    """`input_size`: pixels of the network's square input; None: the image's own height and width, or
    the network's least where that is more. `weights`: "imagenet", the path or URI of a `.weights.h5` or
    `.h5` file without the top, or None for a random start."""

    weights: str | None = None


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class _MobileNetOptions(_Options):
    alpha: float = Field(default=1.0, gt=0, le=4)  # multiplies the filters of every layer
    depth_multiplier: int = Field(default=1, strict=True, ge=1, le=8)  # of the depthwise convolutions


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class _MobileNetV2Options(_Options):
    alpha: float = Field(default=1.0, gt=0, le=4)  # multiplies the filters of every layer


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class _MobileNetV3Options(_Options):
    alpha: float = Field(default=1.0, gt=0, le=4)  # multiplies the filters of every layer
    minimalistic: bool = Field(default=False, strict=True)  # without 5×5, squeeze-and-excite, hard-swish


_EXTRA: dict[str, type[_Options]] = {
    "mobilenet": _MobileNetOptions,
    "mobilenet_v2": _MobileNetV2Options,
    "mobilenet_v3_small": _MobileNetV3Options,
    "mobilenet_v3_large": _MobileNetV3Options,
}

TABLE: dict[str, Application] = {
    "mobilenet": Application("MobileNet", "tf", 32),
    "mobilenet_v2": Application("MobileNetV2", "tf", 32),
    "mobilenet_v3_small": Application("MobileNetV3Small", "none", 32),
    "mobilenet_v3_large": Application("MobileNetV3Large", "none", 32),
    "inception_v3": Application("InceptionV3", "tf", 75),
    "inception_resnet_v2": Application("InceptionResNetV2", "tf", 75),
    "xception": Application("Xception", "tf", 71),
    "nasnet_mobile": Application("NASNetMobile", "tf", 32),
    "nasnet_large": Application("NASNetLarge", "tf", 32),
    "vgg16": Application("VGG16", "caffe", 32),
    "vgg19": Application("VGG19", "caffe", 32),
    **{f"resnet{n}": Application(f"ResNet{n}", "caffe", 32) for n in (50, 101, 152)},
    **{f"resnet{n}_v2": Application(f"ResNet{n}V2", "tf", 32) for n in (50, 101, 152)},
    **{f"densenet{n}": Application(f"DenseNet{n}", "torch", 32) for n in (121, 169, 201)},
    **{f"efficientnet_b{n}": Application(f"EfficientNetB{n}", "none", 32) for n in range(8)},
    **{
        f"efficientnet_v2_{size.lower()}": Application(f"EfficientNetV2{size}", "none", 32)
        for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    },
    **{
        f"convnext_{size.lower()}": Application(f"ConvNeXt{size}", "none", 32)
        for size in ("Tiny", "Small", "Base", "Large", "XLarge")
    },
}


def _options_class(name: str, least: int) -> type:
    @options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
    class Options(_EXTRA.get(name, _Options)):  # type: ignore[misc]  # its base comes from the table
        input_size: int | None = Field(default=None, strict=True, ge=least, le=1024)

    return Options


def _own(options: Any) -> dict[str, Any]:
    """The options that are the constructor's own."""
    return {key: value for key, value in asdict(options).items() if key not in ("input_size", "weights")}


def _construct(name: str, options: Any, height: int, width: int, weights: str | None) -> keras.Model:
    import keras

    constructor = getattr(keras.applications, TABLE[name].constructor)
    with warnings.catch_warnings():
        # Which of its weights Keras takes at which size: docs/models.md says it.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        network: keras.Model = constructor(
            include_top=False,
            weights=weights,
            input_shape=(height, width, 3),
            pooling="avg",
            name=BACKBONE,
            **_own(options),
        )
    return network


def _build(name: str, options: Any, shape: Shape, classes: int) -> keras.Model:
    import keras
    from keras import layers

    least = TABLE[name].least
    height, width = (options.input_size or max(side, least) for side in shape[:2])
    inputs = x = keras.Input(shape)
    if shape[2] == 1:
        x = layers.Concatenate()([x, x, x])
    if (height, width) != shape[:2]:
        # Not `layers.Resizing`: it has `training=True` by default, and Keras 3 hands that on to every later
        # layer of a model that is called without saying (seen in 3.15): batch norm in training mode.
        x = keras.ops.image.resize(x, (height, width), interpolation="bilinear")
    x = preprocess(x, TABLE[name].preprocessing)
    if name.startswith("efficientnet_b") and options.weights == IMAGENET:
        x = _as_efficientnet_was_trained(x)
    # Fresh even where pretrained weights follow: a trained victim comes back without needing their file.
    x = _construct(name, options, height, width, None)(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


def preprocess(images: Any, mode: Preprocessing) -> Any:
    """Keras' `preprocess_input` as layers: (N, H, W, 3) RGB in [0, 1] to what the network takes."""
    import keras
    from keras import layers

    match mode:
        case "tf":
            return layers.Rescaling(2.0, offset=-1.0)(images)
        case "torch":
            scale = [1 / s for s in _STD]
            return layers.Rescaling(scale, offset=[-m / s for m, s in zip(_MEAN, _STD, strict=True)])(images)
        case "caffe":
            mean = (103.939, 116.779, 123.68)  # of ImageNet's BGR pixels in [0, 255]
            bgr = keras.ops.flip(images, axis=-1)
            return layers.Rescaling([255.0] * 3, offset=[-m for m in mean])(bgr)
        case "none":
            return layers.Rescaling(255.0)(images)


def _as_efficientnet_was_trained(images: Any) -> Any:
    """[0, 255] pixels such that the network's own normalisation comes out divided by sqrt(std) once more.

    Keras adds that division inside the network when it builds it with ImageNet weights, and only then
    (tensorflow/tensorflow#49930). Here it stands before the network, so that the same network is built
    when the victim's weights come from the cache.
    """
    from keras import layers

    scale = [1 / math.sqrt(s) for s in _STD]
    return layers.Rescaling(scale, offset=[255 * m * (1 - s) for m, s in zip(_MEAN, scale, strict=True)])(
        images
    )


def _load_pretrained(name: str, model: keras.Model, options: Any, sha256: str | None) -> None:
    backbone = model.get_layer(BACKBONE)
    if options.weights == IMAGENET:
        height, width = backbone.input_shape[1:3]
        source = imagenet_network(lambda: _construct(name, options, height, width, IMAGENET))
        backbone.set_weights(source.get_weights())
    else:
        load_weights_file(backbone, options.weights, sha256)


APPLICATIONS = tuple(
    Architecture(
        name=name,
        version=1,
        options=_options_class(name, application.least),
        build=partial(_build, name),
        least_input=application.least,
        channels=(1, 3),
        load_pretrained=partial(_load_pretrained, name),
    )
    for name, application in TABLE.items()
)
