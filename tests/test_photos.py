"""`image`: photographs of one's own on a classifier, before and after an attack."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.photos import photo_figure
from tests.support.figures import faults
from tests.support.models import digits_cnn
from workers.norms import LINF
from workers.photographs import (
    Classifier,
    PhotographError,
    attack_photographs,
    classifier,
    read_photograph,
)
from workers.storage import Folder

EPSILONS = [0.0, 0.05, 0.2]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """40 × 20 pixels: the left half red, the right half blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 200
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return str(tmp_path / "halves.png")


def test_a_photograph_is_resized_to_what_the_classifier_takes(photo: str, tmp_path: Path) -> None:
    found = read_photograph(photo, (10, 10, 3))
    assert (found.name, found.size, found.image.shape) == ("halves.png", (40, 20), (10, 10, 3))
    np.testing.assert_allclose(found.image[:, 0], [[200 / 255, 0, 0]] * 10, atol=1e-6)
    np.testing.assert_allclose(found.image[:, -1], [[0, 0, 200 / 255]] * 10, atol=1e-6)
    assert read_photograph(photo, (10, 10, 1)).image.shape == (10, 10, 1)
    # A camera that was held upright says so beside the pixels.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(tmp_path / "turned.png", exif=exif)
    turned = read_photograph(str(tmp_path / "turned.png"), (10, 10, 3))
    assert turned.size == (20, 40) and turned.image[0, 5, 0] > 0.7 and turned.image[-1, 5, 2] > 0.7
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(PhotographError, match=r"cannot read .*text.png: it is no image"):
        read_photograph(str(tmp_path / "text.png"), (8, 8, 3))


def photographs(tmp_path: Path, images: np.ndarray) -> list[Any]:
    found = []
    for i, pixels in enumerate(images):
        Image.fromarray(np.rint(pixels[..., 0] * 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
        found.append(read_photograph(str(tmp_path / f"{i}.png"), (8, 8, 1)))
    return found


@pytest.mark.tf
def test_an_attack_spends_its_whole_budget_on_the_models_own_answer(tmp_path: Path) -> None:
    digits = digits_cnn()
    of = Classifier("digits", digits.model, (8, 8, 1), tuple("0123456789"))
    photos = photographs(tmp_path, digits.images[:4])
    found = attack_photographs(of, photos, {"name": "bim", "norm": "linf"}, EPSILONS)
    assert all(one.after[0] == one.before for one in found)
    assert sum(one.after[2].label != one.before.label for one in found) >= 3
    for one in found:
        assert LINF.distance(one.photograph.image[None], one.images[2:])[0] == pytest.approx(0.2, abs=1e-6)
        logits = np.asarray(digits.model(one.images[1:2]))[0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert one.after[1].label == shares.argmax()
        assert one.after[1].confidence == pytest.approx(shares.max(), abs=1e-4)


@pytest.mark.tf
def test_a_named_label_is_driven_away_from_and_nothing_else(tmp_path: Path) -> None:
    """Its probability falls, whatever the model answers; a targeted attack would raise it."""
    digits = digits_cnn()
    of = Classifier("digits", digits.model, (8, 8, 1), ())
    photos = photographs(tmp_path, digits.images[:4])
    config = {"name": "bim", "norm": "linf"}
    answers = [one.before.label for one in attack_photographs(of, photos, config, [0.0])]
    named = next(label for label in range(10) if label not in answers)

    def probability(images: np.ndarray) -> np.ndarray:
        logits = np.asarray(digits.model(images), np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (shares / shares.sum(axis=1, keepdims=True))[:, named]

    found = attack_photographs(of, photos, config, EPSILONS, label=named)
    for one in found:
        falling = probability(one.images)
        assert falling[2] <= falling[0] and not np.array_equal(one.images[0], one.images[2])
    with pytest.raises(PhotographError, match="--label: found 10; 0 to 9 are the classes of digits"):
        attack_photographs(of, photos, config, EPSILONS, label=10)
    with pytest.raises(PhotographError, match="--label needs an attack with a budget that is not targeted"):
        attack_photographs(of, photos, {"name": "deepfool", "norm": "l2"}, EPSILONS, label=named)


@pytest.mark.tf
def test_where_nothing_is_found_a_figure_says_so_at_that_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for the nearest image ends somewhere even then: that is no adversarial image."""
    digits = digits_cnn()
    of = Classifier("digits", digits.model, (8, 8, 1), tuple("0123456789"))
    monkeypatch.setattr("workers.photographs.classifier", lambda *_: of)  # which one, is asked elsewhere
    photographs(tmp_path, digits.images[:1])

    def said(epsilons: str, **asked: Any) -> list[str]:
        given = {"model": "digits", "attack": "deepfool", "epsilons": epsilons, "cache_dir": str(tmp_path)}
        figure = photo_figure([str(tmp_path / "0.png")], **{**given, **asked})
        assert faults(figure) == []
        return [text.get_text() for text in figure.findobj(mpl.text.Text)]

    texts = said("0.0001, 3")
    assert "epsilon 0.0001: nothing found" in texts and "epsilon 3" in texts
    below = " ".join(texts).replace("\n", " ")
    assert "shown is where it ended, moved back to within epsilon" in below
    texts = said("0.0001, 0.001")
    assert {"epsilon 0.0001: nothing found", "epsilon 0.001: nothing found"} <= set(texts)
    # What spends its budget shows what that comes to, and claims nothing.
    assert not any("nothing found" in text for text in said("0.0001", attack="fgsm"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "fgms"}, '--attack: found "fgms"; did you mean "fgsm"? allowed: apgd, bim'),
        ({"attack": "stored"}, '--attack: found "stored"'),
        ({"norm": "l7"}, '--norm: found "l7"; of fgsm these are allowed: linf, l2'),
        ({"options": ["steps"]}, '--set: found "steps"; KEY=VALUE is allowed'),
        ({"options": ["stps=3"]}, 'attack fgsm: unknown option "stps"'),
        ({"epsilons": "0.1,x"}, '--epsilons: found "x"; a number or a fraction'),
        ({"epsilons": "-1"}, "--epsilons: found -1; 0 or more is allowed"),
        (
            {"epsilons": "8,10"},
            "--epsilons: epsilon 8 is more than the pixel range [0, 1] is wide; did you mean 8/255, or "
            "--pixel-range 0 255? at most 1 is allowed",
        ),
        ({"pixel_range": (1.0, -1.0)}, "--pixel-range: found 1 -1; the lower end comes first"),
        ({"paths": ["no/such.png"]}, "no such photograph: no/such.png"),
    ],
)
def test_bad_input_is_said_before_tensorflow_is_imported(
    photo: str, changes: dict[str, Any], message: str
) -> None:
    options = {"paths": [photo], "model": "x", "attack": "fgsm", "epsilons": "0.1", "cache_dir": "/no/cache"}
    with pytest.raises(UserError) as caught:
        photo_figure(**{**options, **changes})
    assert message in str(caught.value)


def test_a_model_that_is_not_there(photo: str, tmp_path: Path) -> None:
    for name in ("small_cnn-mnist-s0-1", "small_cnn-mnist-s1-2"):
        (tmp_path / "victims" / name).mkdir(parents=True)
        (tmp_path / "victims" / name / "x.json").touch()
    cache = Folder.at(str(tmp_path / "victims"))
    with pytest.raises(
        PhotographError, match='"wide" is no victim of the cache: small_cnn-mnist-s0-1, small'
    ):
        classifier("wide", {}, cache)
    with pytest.raises(PhotographError, match='"small_cnn" is the beginning of several victims'):
        classifier("small_cnn", {}, cache)
    with pytest.raises(PhotographError, match="the cache has no whole weights of small_cnn-mnist-s1-2"):
        classifier("small_cnn-mnist-s1", {}, cache)
    with pytest.raises(PhotographError, match="options of the model are those of an ImageNet classifier"):
        classifier("small_cnn", {"alpha": 1}, cache)


def test_the_command_on_a_machine_without_a_gpu(photo: str, tmp_path: Path) -> None:
    """In a process of its own, which sets TensorFlow up: that of the tests has used it before."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "KERAS_HOME": str(tmp_path)}
    command = ["image", photo, "-o", "x.png", "--model", "mobilenet_v2", "--model-set", "alpha=7"]
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and "alpha" in done.stderr, "it got as far as the network"


@pytest.mark.tf
@pytest.mark.slow
def test_an_imagenet_classifier_with_weights_from_keras_folder(
    photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are random, saved under the name that Keras looks for: no true ones are to be had here."""
    import keras

    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, alpha=0.35)
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    network.save_weights(tmp_path / "top.weights.h5")
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224.h5"
    shutil.copy(tmp_path / "top.weights.h5", folder / file)
    names = ", ".join(f'"{i}": ["n{i}", "class_{i}"]' for i in range(1000))
    (folder / "imagenet_class_index.json").write_text(f"{{{names}}}")
    monkeypatch.setenv("KERAS_HOME", str(folder.parent))
    monkeypatch.setattr(keras.utils, "get_file", lambda *given, **named: str(tmp_path / "top.weights.h5"))
    monkeypatch.setattr(
        "keras.src.utils.file_utils.get_file", lambda *given, **named: str(tmp_path / "top.weights.h5")
    )
    figure = photo_figure(
        [photo],
        model="mobilenet_v2",
        attack="fgsm",
        epsilons="0.01, 0.1",
        cache_dir=os.fspath(tmp_path),
        model_options=["alpha=0.35"],
        pixel_range=(-1.0, 1.0),
        label=91,
    )
    said = " ".join(text.get_text() for text in figure.findobj(mpl.text.Text)).replace("\n", " ")
    assert "halves.png (40×20, resized to 224×224)" in said and "class 9" in said
    assert "epsilon 0.1 on [-1, 1], 0.05 on [0, 1]" in said and "linf 0.05" in said
    assert "the loss ascended is that of class 91 (class 91), which was named: neither an untargeted" in said
    assert faults(figure) == []
    # What Keras' own preprocessing and network answer.
    image = read_photograph(photo, (224, 224, 3)).image
    expected = network.predict(keras.applications.mobilenet_v2.preprocess_input(image[None] * 255), verbose=0)
    of = classifier("mobilenet_v2", {"alpha": 0.35}, Folder.at(str(tmp_path)))
    logits = np.asarray(of.model(image[None]))
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(shares, expected, atol=1e-5)
