"""APGD, FAB, Square and their bundle: what they promise, closed forms, and how strong they are."""

from __future__ import annotations

import foolbox
import numpy as np
import pydantic
import pytest
import scipy.optimize
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models import SCALES, VICTIMS, affine, digits_cnn, trained
from tests.test_attacks_oracle import affine_case
from workers import metrics
from workers.attacks import base, build
from workers.attacks.apgd import _checkpoints
from workers.attacks.classes import likeliest
from workers.attacks.hyperplane import to_hyperplane
from workers.attacks.square import Square
from workers.attacks.squares import L2Squares, LinfSquares
from workers.network import network_for
from workers.norms import L2, NORMS

pytestmark = pytest.mark.tf

ALONE = [
    *(
        {"name": name}
        for name in ("fgsm", "bim", "pgd", "apgd", "deepfool", "carlini_wagner", "ddn", "fmn", "fab")
    ),
    {"name": "apgd", "targeted_classes": 2},
    {"name": "fab", "targeted_classes": 0},
]


def nearest_change(image, normal, gain, norm):
    """A generic solver's smallest change: linear programming (linf), SLSQP (l2)."""
    size = len(image)
    if norm == "linf":
        bound = np.ones((size, 1))
        limits = np.block([[np.eye(size), -bound], [-np.eye(size), -bound]])
        answer = scipy.optimize.linprog(
            [0.0] * size + [1.0],
            A_ub=limits,
            b_ub=np.zeros(2 * size),
            A_eq=[[*normal, 0.0]],
            b_eq=[gain],
            bounds=[*zip(-image, 1 - image, strict=True), (0, None)],
        )
        return answer.x[-1]
    answer = scipy.optimize.minimize(
        lambda d: d @ d,
        np.zeros(size),
        jac=lambda d: 2 * d,
        bounds=[*zip(-image, 1 - image, strict=True)],
        constraints={"type": "eq", "fun": lambda d: normal @ d - gain, "jac": lambda d: normal},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert answer.success
    return np.linalg.norm(answer.x)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 7), st.floats(-0.99, 0.99), st.sampled_from(["linf", "l2"]))
def test_projections_onto_a_hyperplane_are_the_nearest(seed, size, share, norm):
    generator = np.random.default_rng(seed)
    image = generator.random(size).astype(np.float32)
    image[generator.random(size) < 0.3] = generator.integers(0, 2)  # pixels at the box's faces
    normal = generator.normal(size=size).astype(np.float32)
    normal[1:][generator.random(size - 1) < 0.2] = 0
    room = np.where((normal > 0) == (share > 0), 1 - image, image)
    gain = share * np.abs(normal) @ room  # what the box allows at most
    change = to_hyperplane(
        image.reshape(1, size, 1, 1), normal.reshape(1, size, 1, 1), np.array([gain]), NORMS[norm]
    )
    change = change.reshape(size).astype(np.float64)
    assert change @ normal == pytest.approx(gain, rel=1e-5, abs=1e-6)
    assert ((image + change >= -1e-6) & (image + change <= 1 + 1e-6)).all()
    measured = np.abs(change).max() if norm == "linf" else np.linalg.norm(change)
    assert measured <= nearest_change(image.astype(float), normal.astype(float), gain, norm) * 1.0001 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_hyperplane_beyond_the_box_is_approached_as_far_as_it_goes(norm):
    image = np.array([0.25, 0.5, 0.75, 0.1], np.float32).reshape(1, 1, 4, 1)
    normal = np.array([1.0, -2.0, 0.5, 0.0], np.float32).reshape(1, 1, 4, 1)
    change = to_hyperplane(image, normal, np.array([100.0]), NORMS[norm])
    np.testing.assert_allclose(change.ravel(), [0.75, -0.5, 0.25, 0], atol=1e-7)
    assert not to_hyperplane(image, normal, np.array([0.0]), NORMS[norm]).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_distance_to_a_hyperplane(norm):
    model, images, labels, boundary, _ = affine_case(norm, [0.2, 0.5, 0.9, 1.3])
    epsilons = np.sort(np.concatenate([boundary * 0.999, boundary * 1.003]))
    result = build({"name": "fab", "norm": norm, "steps": 1})(model, images, labels, epsilons)
    assert np.array_equal(result.success, epsilons[:, None] > boundary)
    np.testing.assert_allclose(result.distance[-1], boundary, rtol=2e-3)
    unrefined = build({"name": "fab", "norm": norm, "steps": 1, "eta": 1.01, "refine": False})
    np.testing.assert_allclose(
        unrefined(model, images, labels, [9.0]).distance[0], 1.01 * boundary, rtol=1e-4
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_nearest_of_many_hyperplanes(norm):
    generator = np.random.default_rng(4)
    weights = generator.normal(size=(27, 12))
    model = affine(weights, -0.5 * weights.sum(axis=0))
    images = generator.uniform(0.4, 0.6, (20, 3, 3, 3)).astype(np.float32)
    logits = np.asarray(model(images))
    labels = logits.argmax(axis=1)
    normals = weights.T - weights.T[labels][:, None]  # (N, K, D)
    dual = np.abs(normals).sum(axis=2) if norm == "linf" else np.linalg.norm(normals, axis=2)
    gaps = logits.max(axis=1, keepdims=True) - logits
    blur = metrics.blur(logits, network_for(model, (3, 3, 3)).logit_size)
    needed = (gaps + blur[:, None]) / np.maximum(dual, 1e-9)
    expected = needed.min(axis=1, where=gaps > 0, initial=np.inf)
    attack = build({"name": "fab", "norm": norm, "steps": 5, "targeted_classes": 11})
    np.testing.assert_allclose(attack(model, images, labels, [9.0]).distance[0], expected, rtol=3e-3)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_succeeds_exactly_beyond_the_hyperplane(norm, loss):
    model, images, labels, boundary, _ = affine_case(norm, [0.2, 0.5, 0.9, 1.3])
    epsilons = np.sort(np.concatenate([boundary * 0.999, boundary * 1.005]))
    result = build({"name": "apgd", "norm": norm, "steps": 30, "loss": loss})(model, images, labels, epsilons)
    assert np.array_equal(result.success, epsilons[:, None] > boundary)


def test_checkpoints_are_the_papers():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checkpoints(10)) == [3, 5, 6, 7, 8, 9, 10]


def test_apgd_halves_its_step_where_the_loss_swings():
    """A valley narrower than the step: only a smaller step gets down to the bottom, where class 1 wins."""

    def valley(images):
        x = tf.reshape(images, (-1, 1))
        return tf.concat([tf.zeros_like(x), 1000 * (1e-6 - tf.square(x - 0.53))], axis=1)

    images = np.full((6, 1, 1, 1), 0.6, np.float32)
    result = build({"name": "apgd"})(valley, images, np.zeros(6, int), [0.2])
    assert result.success.all() and (np.abs(result.images - 0.53) < 1e-3).all()
    assert np.median(result.gradient_calls) > 22, "beyond the first checkpoint"


def test_apgd_t_aims_at_the_likeliest_classes():
    logits = np.array([[3, 5, 1, 4], [0, 2, 2, 9]], np.float32)
    assert likeliest(logits, np.array([1, 3]), 2).tolist() == [[3, 0], [1, 2]]
    assert likeliest(logits, np.array([0, 0]), 9).tolist() == [[1, 3, 2], [3, 1, 2]]
    digits = digits_cnn()
    arguments = (digits.model, digits.images[:40], digits.labels[:40], [0.06])
    robust = [
        build({"name": "apgd", "steps": 10, "targeted_classes": count})(*arguments).robust_accuracy[0]
        for count in (1, 9)
    ]
    assert robust[1] <= robust[0]
    with pytest.raises(pydantic.ValidationError, match="targeted together with targeted_classes"):
        build({"name": "apgd", "targeted": True, "targeted_classes": 3})


def test_squares_shrink_on_the_papers_schedule():
    sides = [Square()._side(query, (32, 32, 3), 1) for query in (1, 5, 6, 26, 101, 251, 501, 2001, 4999)]
    assert sides == [29, 29, 20, 14, 10, 7, 5, 3, 1]
    assert Square(p_init=0.1)._side(1, (28, 28, 1), 3) == 9
    assert Square()._side(4999, (28, 28, 1), 3) == 3 and Square()._side(1, (2, 9, 1), 3) == 2


def test_a_linf_query_changes_one_square_to_the_faces_of_the_ball():
    generator = np.random.default_rng(0)
    clean = generator.uniform(0.2, 0.8, (200, 9, 7, 3)).astype(np.float32)
    radius = np.full((200, 1, 1, 1), 0.1, np.float32)
    squares = LinfSquares(clean.shape[1:])
    start = squares.start(clean, radius, generator.random((200, squares.first_draws)))
    assert (start[:, :1] - clean[:, :1] == start[:, 5:6] - clean[:, 5:6]).mean() > 0.1
    np.testing.assert_allclose(np.abs(start - clean), 0.1, rtol=1e-5)
    signs = np.sign(start - clean)
    assert (signs == signs[:, :1]).all(), "stripes are vertical"
    proposed = squares.propose(start, clean, radius, 3, generator.random((200, squares.draws)))
    np.testing.assert_allclose(np.abs(proposed - clean), 0.1, rtol=1e-5)
    changed = (proposed != start).any(axis=3)
    assert changed.any(axis=(1, 2)).all(), "no query is wasted"
    down, across = changed.any(axis=2), changed.any(axis=1)
    for place in (down, across):
        first, last = place.argmax(axis=1), place.shape[1] - 1 - place[:, ::-1].argmax(axis=1)
        assert (last - first < 3).all()
        assert first.min() == 0 and last.max() == place.shape[1] - 1, "every place is reached"


@pytest.mark.parametrize("shape", [(9, 7, 3), (28, 28, 1), (4, 6, 1)], ids=str)
def test_an_l2_query_spends_the_whole_budget(shape):
    generator = np.random.default_rng(0)
    clean = np.full((50, *shape), 0.5, np.float32)
    radius = np.full((50, 1, 1, 1), 0.4, np.float32)
    squares = L2Squares(shape)
    images = squares.start(clean, radius, generator.random((50, squares.first_draws)))
    for _ in range(20):
        before = images
        images = squares.propose(images, clean, radius, 3, generator.random((50, squares.draws)))
        np.testing.assert_allclose(L2.distance(clean, images), 0.4, rtol=1e-5)
        moved = (images != before).reshape(50, -1).any(axis=1)
        assert moved.mean() > 0.9


def test_square_sees_through_a_staircase():
    """No gradient anywhere, but squares only ask for answers."""

    def staircase(images):
        steps = tf.stop_gradient(tf.round(images * 20) / 20)
        return tf.reshape(steps, (-1, 16)) @ tf.constant([[-1.0, 1.0]] * 16) + [8.0, -8.0]

    images = np.full((10, 4, 4, 1), 0.45, np.float32)
    for norm, epsilons in (("linf", [0.02, 0.2]), ("l2", [0.1, 0.8])):
        attack = build({"name": "square", "norm": norm, "queries": 300})
        result = attack(staircase, images, np.zeros(10, int), epsilons)
        assert result.success[1].all() and not result.success[0].any()


def test_the_bundle_breaks_what_hides_its_gradient():
    @tf.custom_gradient
    def flat(images):
        return tf.round(images * 20) / 20, tf.zeros_like

    def model(images):
        return tf.reshape(flat(images), (-1, 16)) @ tf.constant([[-1.0, 1.0]] * 16) + [8.0, -8.0]

    images = np.full((4, 4, 4, 1), 0.45, np.float32)
    bundle = build({"name": "standard", "steps": 3, "queries": 200})
    result = bundle(model, images, np.zeros(4, int), [0.02, 0.2])
    assert result.success.tolist() == [[False] * 4, [True] * 4]
    assert result.flags["zero_gradients"].all()
    for member in list(bundle.members().values())[1:3]:
        assert not member(model, images, np.zeros(4, int), [0.2]).success.any()


def rounded(images):
    """No gradient flows at all through TensorFlow's rounding."""
    steps = tf.round(images * 20) / 20
    return tf.reshape(steps, (-1, 16)) @ tf.constant([[-1.0, 1.0]] * 16) + [8.0, -8.0]


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_members_without_a_gradient_are_passed_over_and_square_runs(version):
    images = np.full((4, 4, 4, 1), 0.45, np.float32)
    wrong = np.array([0, 0, 0, 1])  # the last one is not attacked
    bundle = build({"name": "standard", "steps": 3, "queries": 200, "version": version})
    result = bundle(rounded, images, wrong, [0.02, 0.2])
    broken = version != "rand"
    assert result.success.tolist() == [[False] * 4, [broken] * 3 + [False]]
    assert result.members.tolist() == [[None] * 4, [("square" if broken else None)] * 3 + [None]]
    assert result.flags["zero_gradients"].tolist() == [True, True, True, False]
    assert (result.forward_calls_at[:, :3] > 0).all() == broken


@pytest.mark.parametrize("config", ALONE, ids=lambda config: "-".join(map(str, config.values())))
def test_alone_an_attack_that_needs_a_gradient_finds_nothing_and_says_why(config):
    images = np.full((4, 4, 4, 1), 0.45, np.float32)
    for choose in ("first", "strongest"):
        result = build(config)(rounded, images, np.array([0, 0, 0, 1]), [0.02, 8.0], choose=choose)
        assert not result.success.any() and np.isinf(result.distance).all()
        assert result.flags["zero_gradients"].tolist() == [True, True, True, False]
        np.testing.assert_array_equal(result.images, np.stack([images, images]))


STRENGTH = {"linf": np.array([0.04, 0.08, 0.12]), "l2": np.array([0.4, 0.7, 1.0])}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_who_is_stronger_than_whom(victim, norm):
    model, images, labels = trained(victim)

    def robust(name, **options):
        attack = build({"name": name, "norm": norm, **options})
        return attack(model, images[:80], labels[:80], SCALES[victim, norm] * STRENGTH[norm]).robust_accuracy

    noise = robust("noise")
    pgd, apgd = robust("pgd", steps=40), robust("apgd", steps=40, restarts=2)
    square = robust("square", queries=400)
    assert (apgd <= pgd + 0.02).all()  # an example or so, of 80
    assert (square >= apgd).all()
    # An L2 query of a larger image changes less of it.
    share = 0.2 if norm == "l2" and victim != "digits" else 0.5
    assert (square <= noise).all() and (noise - square).sum() > share * (noise - apgd).sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_bundle_breaks_whatever_one_of_its_members_breaks(norm):
    digits = digits_cnn()
    arguments = (digits.model, digits.images[:40], digits.labels[:40], STRENGTH[norm])
    bundle = build({"name": "standard", "norm": norm, "steps": 3, "queries": 40, "targeted_classes": 4})
    whole = bundle(*arguments)
    alone = [member(*arguments) for member in bundle.members().values()]
    together = np.logical_or.reduce([result.success for result in alone])
    assert (whole.success != together).sum() <= 1  # the last bits of another batch
    assert 0 < alone[-1].success.sum() < together.sum(), "members differ"
    spent = sum(result.gradient_calls.sum() for result in alone)
    assert whole.gradient_calls.sum() < spent, "survivors only"
    first = np.full(whole.success.shape, None, object)
    for name, result in reversed([*zip(bundle.members(), alone, strict=True)]):
        first[result.success] = name
    assert (whole.members != first).sum() <= 1, "the first that breaks it alone is said to have broken it"
    assert {"apgd-ce", None} <= set(whole.members.ravel())


def test_versions_are_autoattacks():
    def members(version):
        return [
            (name, member.name, getattr(member, "restarts", None))
            for name, member in build({"name": "standard", "version": version}).members().items()
        ]

    assert members("standard") == [
        ("apgd-ce", "apgd", 1),
        ("apgd-t", "apgd", 1),
        ("fab-t", "fab", 1),
        ("square", "square", None),
    ]
    assert members("plus") == [
        ("apgd-ce", "apgd", 5),
        ("apgd-dlr", "apgd", 5),
        ("fab", "fab", 5),
        ("square", "square", None),
        ("apgd-t", "apgd", 1),
        ("fab-t", "fab", 1),
    ]
    assert members("rand") == [("apgd-ce", "apgd", 1), ("apgd-dlr", "apgd", 1)]
    assert (
        build({"name": "apgd"})(*digits_cnn()[:1], *(each[:5] for each in digits_cnn()[1:]), [0.1]).members
        is None
    )


def test_parts_of_a_call_keep_their_members(monkeypatch):
    digits = digits_cnn()
    bundle = build({"name": "standard", "steps": 3, "queries": 20, "targeted_classes": 2})
    arguments = (digits.model, digits.images[:30], digits.labels[:30], [0.05, 0.1])
    whole = bundle(*arguments)
    monkeypatch.setattr(base, "ROW_BYTES", 2 * 8 * 8 * 4 * 7)  # seven examples at two epsilons
    parts = bundle(*arguments)
    assert ((parts.members != None) == parts.success).all()  # noqa: E711
    assert (parts.members != whole.members).sum() <= 1


@pytest.mark.parametrize(
    ("norm", "peer"),
    [
        ("l2", foolbox.attacks.DDNAttack(steps=50)),
        ("linf", foolbox.attacks.LInfFMNAttack(steps=50)),
    ],
    ids=["l2-ddn", "linf-fmn"],
)
@pytest.mark.parametrize("victim", VICTIMS)
def test_fab_is_as_near_as_foolbox(victim, norm, peer):
    model, images, labels = trained(victim)
    images, labels = images[:40], labels[:40]
    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    found, _, success = peer(wrapped, tf.constant(images), tf.constant(labels), epsilons=None)
    expected = np.where(success.numpy(), NORMS[norm].distance(images, np.asarray(found)), np.inf)
    result = build({"name": "fab", "norm": norm, "steps": 20})(model, images, labels, [50.0])
    correct = result.clean_correct
    assert result.success[0, correct].sum() >= np.isfinite(expected[correct]).sum()
    assert np.median(result.distance[0, correct]) <= 1.02 * np.median(expected[correct])


# Four pixels, three classes, not linear. Expected images are for these VERSIONs.
VERSIONS = {"apgd": 2, "fab": 1, "fmn": 2, "square": 1}
GOLDEN = {
    ("apgd", "linf"): [0.950000, 0.450000, 0.650000, 0.607952, 0.350000, 0.650000, 0.050000, 0.850000],
    ("apgd", "l2"): [0.844356, 0.402655, 0.377286, 0.508730, 0.241591, 0.700819, 0.249669, 0.615673],
    ("fab", "linf"): [0.725899, 0.225899, 0.374101, 0.500000, 0.350000, 0.650000, 0.050000, 0.850000],
    ("fab", "l2"): [0.718943, 0.235559, 0.390529, 0.500000, 0.273061, 0.723309, 0.278243, 0.629275],
    ("fmn", "linf"): [0.725883, 0.225883, 0.374117, 0.500000, 0.350000, 0.650000, 0.050000, 0.850000],
    ("fmn", "l2"): [0.719347, 0.235246, 0.390326, 0.500000, 0.243523, 0.703181, 0.246013, 0.615778],
    ("square", "linf"): [0.950000, 0.450000, 0.150000, 0.250000, 0.000000, 1.000000, 0.050000, 0.850000],
    ("square", "l2"): [0.815350, 0.403893, 0.338266, 0.561734, 0.163874, 0.689039, 0.412903, 0.634184],
}


@pytest.mark.parametrize(("name", "norm"), GOLDEN)
def test_golden_images(name, norm):
    """A change here changes published numbers: raise the attack's VERSION, then these."""
    matrix = tf.constant([[2.0, -1.0, 0.5], [-1.0, 1.5, 1.0], [0.5, 0.2, -1.0], [-0.3, 0.1, 0.9]])

    def model(images):
        flat = tf.reshape(images, (-1, 4))
        return flat @ matrix + tf.square(flat) @ tf.reverse(matrix, [1])

    images = np.array([[0.7, 0.2, 0.4, 0.5], [0.1, 0.9, 0.3, 0.6]], np.float32).reshape(2, 2, 2, 1)
    labels = np.argmax(model(images), axis=1)
    budget = {"queries": 5} if name == "square" else {"steps": 3}
    budget |= {"restarts": 1} if name in ("apgd", "fab") else {}
    attack = build({"name": name, "norm": norm, **budget})
    assert VERSIONS[name] == attack.VERSION
    result = attack(model, images, labels, [0.25], seed=1, choose="last")
    np.testing.assert_allclose(result.images.ravel(), GOLDEN[name, norm], atol=2e-5)
