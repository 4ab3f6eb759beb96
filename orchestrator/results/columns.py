"""What every column of every view means: `python docs/write_columns.py` writes docs/columns.md from it."""

from __future__ import annotations

from orchestrator.results.schemas import VICTIM_COLUMNS

_SWEEP = {
    "sweep": "the sweep: the name of its output folder, with more of its path where two are called alike",
}

_RECIPE = {
    "recipe": "how the victim is trained: the options that differ from their defaults, as `epochs=30`; an "
    "empty text: none do; `as it is`: not at all",
}

_VICTIM = {
    "model": "the architecture, or the name that the grid gives to a model",
    "model_options": "its options that differ from their defaults, as `width=64`; an empty text: none do",
    "dataset": "the dataset",
    "defence": "the defence with its options; `none`: there is none",
    "seed": "the training seed",
    "victim_id": "the victim: model, dataset, recipe, defence and seed",
}

_CELL = {
    "cell_id": "the cell: a victim, an attack and an epsilon",
    **_VICTIM,
    "attack_id": "the attack with its norm, options and seed",
    "attack": "the attack, or the name that the grid gives to one",
    "attack_options": "its options that differ from their defaults; an empty text: none do",
    "norm": "the norm of epsilon: `linf` or `l2`",
    "adaptive": "the attack used gradients of the victim as defended; false: those of the undefended network",
    "epsilon": "the largest distance that counts as a success, on the [0, 1] pixel scale",
}

_OF_ATTACK = ("cell_id", "attack_id", "attack", "attack_options")

_ROBUST = {
    "robust_accuracy": "share of the `n` examples that the victim gets right and {broken}, in [0, 1]",
    "robust_low": "lower end of its 95% Wilson interval, for the sampling of test images",
    "robust_high": "upper end of that interval",
}


def _robust(broken: str) -> dict[str, str]:
    return {name: meaning.format(broken=broken) for name, meaning in _ROBUST.items()}


_SHARES = {
    "targeted": "success of the attack is a given class, not any other than the label",
    "n": "examples that are there, of those wanted",
    "examples": "examples wanted: the first so many of the evaluation order",
    "clean_accuracy": "share of the `n` examples whose clean image the victim gets right, in [0, 1]",
    "robust_accuracy": "share of the `n` examples that the victim gets right and the images do not break, in "
    "[0, 1]; null where the attack is targeted",
    "robust_low": _ROBUST["robust_low"],
    "robust_high": _ROBUST["robust_high"],
    "target_missed": "of a targeted attack: share of the `n` examples that the victim gets right and the "
    "images do not drive to their target class; null: not targeted",
    "target_missed_low": "lower end of its 95% Wilson interval",
    "target_missed_high": "upper end of that interval",
    "attack_success_rate": "share broken of those that the victim gets right, whatever the source makes of "
    "them, in [0, 1]",
    "attack_success_rate_uint8": "the same with images rounded to 8 bits",
}

_FROM = {
    "source_model": "the model of the source, the victim that the images were made against",
    "source_model_options": "its options that differ from their defaults",
    "source_recipe": "how it was trained",
    "source_defence": "its defence; `none`: there is none",
    "source_seed": "its training seed",
    "source_id": "the source, a `victim_id`",
}

MEANINGS: dict[str, dict[str, str]] = {
    "examples": {
        **_SWEEP,
        **_CELL,
        "position": "place in the evaluation order, from 0: the same in every cell of a dataset",
        "example_index": "row of the dataset's test split, from 0",
        "label": "the true class, from 0",
        "clean_label": "the victim's answer to the clean image; null where its logits are not finite",
        "clean_confidence": "softmax probability of that answer, in [0, 1]",
        "clean_correct": "the answer is right; else the example is not attacked",
        "adv_label": "the victim's answer to the adversarial image; null without success",
        "adv_confidence": "softmax probability of that answer, in [0, 1]; null without success",
        "success": "an adversarial image within epsilon was found, as measured from the image alone",
        "success_uint8": "the image rounded to 8 bits within epsilon still fools the victim",
        "linf": "largest change of a pixel, in [0, 1]; null: not attacked; infinite: the attack failed",
        "l2": "Euclidean distance from the clean image, pixels in [0, 1]; null and infinite likewise",
        "l0": "pixels (not channels) changed; null and infinite likewise",
        "forward_calls": "images put through the victim for this row; null where an attack does not say",
        "gradient_calls": "images whose gradient was taken for this row; null where an attack does not say",
        "ssim": "structural similarity of the image with the whole budget spent, in [-1, 1]; null where not "
        "measured, or below 11 pixels",
        "psnr": "peak signal-to-noise ratio of that image, in dB; infinite: nothing changed",
        "full_linf": "largest change of a pixel in that image, in [0, 1]",
        "full_l2": "its Euclidean distance from the clean image",
        "changed_share": "share of its pixels changed by more than 1/510, in [0, 1]",
        "flags": "what was wrong where the example was attacked; null: nothing",
        "nearest": "of a minimum-norm attack: distance of the nearest adversarial image in the norm of "
        "epsilon, whatever the epsilons; infinite: none was found; null: another attack, or not attacked",
        "target": "the class that a targeted attack aims at; null: not targeted, or not attacked",
        "member": "the attack of a bundle that broke the example; null: none did, or no bundle",
        "clean_wrong_draws": "of a randomised victim: share of fresh draws in which the clean image is "
        "answered wrongly; null: not randomised",
        "wrong_draws": "the same of the adversarial image; null also where the attack claimed no success",
    },
    "cells": {
        **_SWEEP,
        **_RECIPE,
        **_CELL,
        "targeted": "success of the attack is a given class, not any other than the label",
        "minimum_norm": "the attack looks for the nearest adversarial image, whatever epsilon is",
        "model_label": "what people read in place of the model: the `label:` of the grid as last run; an "
        "empty text: it gives none",
        "dataset_label": "the same of the dataset",
        "defence_label": "of the defence",
        "attack_label": "of the attack",
        "n": "examples that are there, of those wanted",
        "examples": "examples wanted: the first so many of the evaluation order",
        "clean_accuracy": "share of the `n` examples whose clean image the victim gets right, in [0, 1]",
        "robust_accuracy": _ROBUST["robust_accuracy"].format(broken="the attack does not break")
        + "; null where it is targeted",
        "robust_low": _ROBUST["robust_low"],
        "robust_high": _ROBUST["robust_high"],
        "target_missed": "of a targeted attack: share of the `n` examples that the victim gets right and the "
        "attack does not drive to their target class, in [0, 1]; no robust accuracy, as it may drive them to "
        "others; null: not targeted",
        "target_missed_low": "lower end of its 95% Wilson interval",
        "target_missed_high": "upper end of that interval",
        "attack_success_rate": "share with success of those that the victim gets right, in [0, 1]",
        "attack_success_rate_uint8": "the same with images rounded to 8 bits",
        "mean_success_distance": "mean distance of the successes, which lie within epsilon, in the norm of "
        "epsilon; null without any",
        "median_success_distance": "their median distance",
        "median_nearest": "of a minimum-norm attack: median of `examples.nearest` over all examples that the "
        "victim gets right, whatever epsilon is; infinite where the attack failed on half of them; null: "
        "another attack",
        "not_found": "of a minimum-norm attack: examples that the victim gets right for which it found no "
        "adversarial image at any distance; null: another attack",
        "ssim": "mean of `examples.ssim` where it was measured",
        "psnr": "mean of `examples.psnr` where it was measured, in dB",
        "forward_calls": "sum over the examples; null where the attack does not say",
        "gradient_calls": "sum over the examples; null where the attack does not say",
        "seconds": "of the cell's shards, each divided among its cells",
        "device": "what the shards were computed on",
        "flags": "what makes the numbers mean less than they seem, by name",
        "status": "`done`; `failed`: a unit that it needs ran out of attempts; `partial`; `missing`",
        "robust_accuracy_unchecked": "robust accuracy as it was measured, also where a check calls it wrong",
        "target_missed_unchecked": "`target_missed` likewise",
        "verdict": "the gravest that checks say of the cell: `wrong`, and then robust accuracy, "
        "`target_missed`, their intervals and attack success rates are null; `suspicious`; `note`; null: "
        "nothing",
        "checks": "the rules that say so, the gravest first",
    },
    "worst_case": {
        **_SWEEP,
        **_RECIPE,
        **_VICTIM,
        "norm": "the norm of epsilon",
        "epsilon": "the largest distance that counts, on the [0, 1] pixel scale",
        "attacks": "the adaptive, untargeted attacks of that norm that cover epsilon and have results: "
        "fixed-budget ones that ran at it, and minimum-norm ones, which cover every epsilon",
        "n": "examples that all of these cover",
        "examples": "examples wanted: the first so many of the evaluation order",
        **_robust("no adversarial image within epsilon has been found for, by any attack"),
        "complete": "all attacks that are to cover epsilon are done",
        "robust_with_transfer": "robust accuracy where images that were made against other victims count "
        "too: share of the `n` examples that these do not break either, within epsilon. Which other victims "
        "there are differs from victim to victim: do not rank by it. Null: none were to be tried at epsilon, "
        "or not all of them have been",
        "with_transfer_low": "lower end of its 95% Wilson interval",
        "with_transfer_high": "upper end of that interval",
        "robust_accuracy_unchecked": "robust accuracy as it was measured, also where a check calls it wrong",
        "robust_with_transfer_unchecked": "`robust_with_transfer` likewise",
        "verdict": "the gravest that checks say of all its searches: `wrong`, and then robust accuracy and "
        "its interval are null; `suspicious`; `note`; null: nothing",
        "checks": "the rules that say so, the gravest first",
    },
    "distances": {
        **_SWEEP,
        **_RECIPE,
        **_VICTIM,
        "attack_id": "the minimum-norm attack with its options and seed",
        "attack": "its name",
        "attack_options": "its options that differ from their defaults; an empty text: none do",
        "norm": "the norm of the distance",
        "adaptive": "as of `cells`",
        "targeted": "as of `cells`",
        "position": "place in the evaluation order, from 0",
        "example_index": "row of the dataset's test split, from 0",
        "label": "the true class, from 0",
        "clean_correct": "the victim is right on the clean image; else the example is not attacked",
        "nearest": "distance of the nearest adversarial image that the attack found; infinite: none; null: "
        "not attacked",
    },
    "victims": {
        **_SWEEP,
        **_RECIPE,
        **_VICTIM,
        "defence": "the defence, without its options; `none`: there is none",
        "data": "fingerprint of the images and labels that it was trained and attacked on; null: not "
        "recorded",
        "weights": "SHA-256 of its weights, to which the folder is pinned",
        "parameters": "how many numbers its weights are",
        "train_examples": "training images that it was fitted on; 0 for a model used as it is",
        "train_accuracy": "`accuracy` of its last epoch in `history`; null for a model used as it is",
        "validation_accuracy": "accuracy on training images held out, in [0, 1]; null likewise",
        "test_accuracy": "accuracy on the first `test_examples` clean test images, in [0, 1]",
        "test_examples": "how many those are",
        "chance": "share of the most frequent class in the test split, in [0, 1]",
        "adversarial_accuracy": "as of the last epoch in `history`",
        "validation_adversarial_accuracy": "likewise",
        "class_names": "what the classes are called, in the order of labels; null where nobody says",
        "seconds": "that training took",
        "trained_at": "when, ISO 8601 in UTC",
        "clean_accuracy": "share right of the `n` clean images that any attack has seen, in [0, 1]",
        "n": "examples that any attack has seen",
    },
    "history": {
        **_SWEEP,
        "victim_id": "the victim",
        "epoch": "from 1, through all phases",
        "phase": "`scratch`; or `head`, on frozen features, then `fine_tune`",
        "loss": "what training lowers, the cross-entropy or what a defence has in its place, as the epoch "
        "went",
        "accuracy": "accuracy on training images then, in [0, 1]; where a defence trains on others, on the "
        "first 1,024 as they are, after the epoch",
        "validation_loss": "cross-entropy on the training images held out, as they are",
        "validation_accuracy": "accuracy on those, in [0, 1]",
        "seconds": "that the epoch took",
        "adversarial_accuracy": "accuracy on training images under the training's own attack while the epoch "
        "went, in [0, 1]; null: it has none",
        "validation_adversarial_accuracy": "accuracy on 64 to 512 images held out, under pgd of 10 steps at "
        "the whole epsilon of the training, in [0, 1]; null likewise",
    },
    "failures": {
        **_SWEEP,
        "at": "when, ISO 8601 in UTC",
        "run_id": "the run, a folder in `runs/`",
        "unit_id": "the unit",
        "unit": "the unit in words",
        "victim_id": "its victim",
        "attack_id": "its attack; null for a training",
        "cells": "its cells, by id; empty for a training",
        "start": "its first position of the evaluation order",
        "stop": "the position behind its last",
        "attempt": "which attempt it was, from 1",
        "final": "no attempt was left: the unit counts as failed until a run with `--retry-failed`",
        "error": "what happened, in one line",
        "traceback": "Python's traceback, where there is one",
        "worker": "the worker that it happened on",
    },
    "strengthened": {
        **_SWEEP,
        **{
            name: f"{meaning}; null: of a worst case" for name, meaning in _CELL.items() if name in _OF_ATTACK
        },
        **{name: meaning for name, meaning in _CELL.items() if name not in _OF_ATTACK},
        "stronger": "the attack on the survivors, with its options that differ from their defaults",
        "n": "examples of the cell, or of the worst case",
        "survivors": "of these: the victim is right, and they are not broken",
        "tried": "of the survivors: attacked again by `stronger`",
        "broken": "of those: broken now",
        "robust_accuracy": "of the cell, or of the worst case, as it is there: `survivors` / `n`; null where "
        "a check calls it wrong",
        "robust_accuracy_after": "what it would be without those that `stronger` breaks; null also until all "
        "survivors are tried",
    },
    "checks": {
        **_SWEEP,
        "rule": "the rule that fired",
        "severity": "`wrong`: a number is not what it says; `suspicious`: the model may be far less robust "
        "than a number says; `note`: worth knowing",
        **{name: f"{meaning}; null: of several" for name, meaning in _CELL.items()},
        "place": "what it is of, in words, by labels where the grid has them",
        "figure": "what was found",
        "allowed": "what it may be at the most, or at the least",
        "message": "what was found, in one sentence",
        "advice": "what to do then",
    },
    "transfer": {
        **_SWEEP,
        **_RECIPE,
        **_CELL,
        "cell_id": "the cell: two victims, an attack and an epsilon",
        "victim_id": "the victim that the images are tried on, whose columns these are",
        "attack_id": "the attack with its norm, options and seed, and the source",
        **_FROM,
        "same_network": "source and victim are one network, behind different defences at inference",
        **_SHARES,
        "white_box_robust_accuracy": "robust accuracy under the same attack on the victim itself, on the "
        "same `n` examples; null where that has not been measured on as many, is wrong by a check, or is "
        "targeted",
        "white_box_cell_id": "its cell in `cells`; null: there is none",
        "beyond": "examples that the images break and no attack of that norm on the victim itself does at "
        "epsilon, of those that all of these have been run on; null: there is no such attack",
        "seconds": "of the cell's shards, each divided among its cells; what making the images took is "
        "divided among the victims that they were tried on",
        "device": "what the shards were computed on",
        "flags": "what makes the numbers mean less than they seem, by name; of gradients: where the images "
        "were made",
        "status": "as of `cells`",
        "robust_accuracy_unchecked": "robust accuracy as it was measured, also where a check calls it wrong",
        "target_missed_unchecked": "`target_missed` likewise",
        "verdict": "the gravest that checks say of the cell, as of `cells`",
        "checks": "the rules that say so, the gravest first",
    },
}
"""View -> column -> meaning."""

_TAKEN = {
    "sigma": "standard deviation of the noise, on the [0, 1] pixel scale",
    "n0": "draws that choose a class",
    "draws": "other draws, that bound how often it is answered",
    "alpha": "each certificate is wrong with a probability of at most this",
}

MEANINGS["certified"] = {
    **_SWEEP,
    "cell_id": "the smoothed victim's certificates, as far as they take the same draws",
    **{name: {**_RECIPE, **_VICTIM}[name] for name in VICTIM_COLUMNS},
    **_TAKEN,
    "position": MEANINGS["examples"]["position"],
    "example_index": MEANINGS["examples"]["example_index"],
    "label": MEANINGS["examples"]["label"],
    "answer": "the class that the smoothed victim answers within the radius; null: it abstains",
    "abstained": "the draws do not show that any class is answered more often than not",
    "radius": "L2 distance, pixels in [0, 1], below which `answer` is certified; null where it abstains",
    "top_label": "the class that was answered most often when one was chosen; null: no answer was finite",
    "votes": "of the `draws`: those that answered it",
}

MEANINGS["certified_accuracy"] = {
    **{name: meaning for name, meaning in MEANINGS["certified"].items() if name in ("sweep", "cell_id")},
    **{name: {**_RECIPE, **_VICTIM}[name] for name in VICTIM_COLUMNS},
    **_TAKEN,
    "epsilon": "L2 distance on the [0, 1] pixel scale: those of the grid's L2 attacks on the dataset, and 0",
    "n": "examples that have a certificate, of those wanted",
    "examples": "examples wanted: the first so many of the evaluation order",
    "clean_accuracy": "share of the `n` examples whose clean image most of 20 draws answer rightly, as "
    "attacks score it; null where no attack has seen just these",
    "certified_accuracy": "share of the `n` examples whose answer is right and certified beyond epsilon: a "
    "lower bound of the smoothed victim's robust accuracy, as far as its certificates hold",
    "certified_at_least": "the same, less as many certificates as may be wrong, with a confidence of 95%",
    "abstained": "examples of the `n` that it abstains on",
    "robust_accuracy": "of the worst case under all L2 attacks on the same `n` examples: an upper bound; "
    "null where these have not all run on as many, or a check calls it wrong",
    "attacks": "which attacks those are",
    "seconds": "that the certificates took",
    "device": "what they were computed on",
    "status": "as of `cells`, of the certificates",
    "certified_accuracy_unchecked": "`certified_accuracy`, also where an attack contradicts it",
    "verdict": "`wrong`: an attack succeeds where certificates say that none can, so neither number is shown",
    "checks": "the rule that says so",
}

MEANINGS["attacks"] = {
    **_SWEEP,
    **_RECIPE,
    **{name: meaning for name, meaning in _CELL.items() if name not in ("cell_id", "epsilon")},
    "targeted": MEANINGS["cells"]["targeted"],
    "minimum_norm": MEANINGS["cells"]["minimum_norm"],
    "n": "examples that are there in each of its cells, of those wanted",
    "examples": MEANINGS["cells"]["examples"],
    "epsilons": "what `area` is over: those above 0 that all adaptive, untargeted attacks of that norm on "
    "the victim cover, a minimum-norm attack all of them; empty where the attack is none of these",
    "clean_accuracy": "share of the examples whose clean image the victim gets right, in [0, 1]",
    "area": "under the curve from `clean_accuracy` at 0 through robust accuracy at `epsilons`, straight in "
    "between, divided by the largest of them, in [0, 1]: the lower, the better the attack. Null: see `why`",
    "worst_case_area": "the same of the worst case of `attacks`; null likewise",
    "optimality": "(`clean_accuracy` − `area`) / (`clean_accuracy` − `worst_case_area`), in [0, 1]; 1: the "
    "attack breaks all that any of `attacks` does, at each of `epsilons`. Null: see `why`",
    "attacks": "the adaptive, untargeted attacks of that norm on the victim, itself among them",
    "why": "there is no optimality: `one attack` (1 by construction), `incomplete` (another is not done), "
    "`worst case wrong` (a check says so), `nothing broken`; or no area either: `targeted`, `oblivious`, "
    "`failed`, `partial`, `missing`, `wrong`, `no shared epsilon`; an empty text: there are both",
    "own_epsilons": "its epsilons in the grid: calls and seconds are for all of them together",
    "forward_calls": "images put through the victim per attacked example, a mean; null until all cells are "
    "done, where the attack does not say, and where the grid has dropped an epsilon of it, since a call that "
    "serves several epsilons is counted at the first",
    "gradient_calls": "images whose gradient was taken per attacked example, likewise; such a call brings "
    "its answer too, which is no forward call",
    "seconds": "per attacked example, of its shards whole: with loading and measuring; null likewise",
    "device": "what the shards were computed on",
    "status": "`done` where all of its cells are; `failed` where one is; `missing` where all are; `partial`",
    "verdict": "the gravest that checks say of any of its cells; null: nothing",
    "checks": "the rules that say so, by name",
}

_OF_EXAMPLE = (
    *("position", "example_index", "label", "clean_label", "clean_confidence", "clean_correct", "adv_label"),
    *("adv_confidence", "success", "success_uint8", "linf", "l2", "l0", "flags", "target"),
    *("clean_wrong_draws", "wrong_draws"),
)

MEANINGS["transferred"] = {
    **{name: MEANINGS["transfer"][name] for name in ("sweep", *_CELL, "source_id")},
    **{name: MEANINGS["examples"][name] for name in _OF_EXAMPLE},
    "success": "the victim is right on the clean image and wrong on the one made against the source, which "
    "lies within epsilon",
}
