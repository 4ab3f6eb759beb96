"""What a robustness table may show, and what tables may be made by. Light: commands offer it."""

from __future__ import annotations

from dataclasses import dataclass

BY = ("sweep", "model", "defence", "attack")
"""What tables may be made by, beside dataset and norm, by which they always are."""


WORST_CASE = "worst case"
"""What stands in place of an attack where a row is of all that cover an epsilon."""

WITH_TRANSFER = "worst case, with transfer"
"""The same, where images that were made against other victims count too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of cells that a robustness table may show. `column` is the view `cells`'s."""

    column: str
    title: str  # what the table says it is
    ends: str = ""  # its interval is in the columns `<ends>_low` and `<ends>_high`
    share: bool = True  # shown in percent
    without: str = ""  # why a cell that is done may have none


_NOTHING_RIGHT = "no clean image is right"
_NO_SUCCESS = "no success"
_NOTHING_SEEN = "no changed image among the first 64"

SMALL = "SSIM is not defined below 11 pixels"
"""Why there is no SSIM where there are other numbers of visibility."""

METRICS = {
    metric.column: metric
    for metric in (
        Metric(column="robust_accuracy", title="robust accuracy", ends="robust"),
        Metric(column="attack_success_rate", title="attack success rate", without=_NOTHING_RIGHT),
        Metric(
            column="attack_success_rate_uint8", title="attack success rate in 8 bits", without=_NOTHING_RIGHT
        ),
        Metric(
            column="mean_success_distance",
            title="mean distance of the successes",
            share=False,
            without=_NO_SUCCESS,
        ),
        Metric(
            column="median_success_distance",
            title="median distance of the successes",
            share=False,
            without=_NO_SUCCESS,
        ),
        Metric(
            column="median_nearest",
            title="median distance of the nearest image",
            share=False,
            without="no minimum-norm attack, or no clean image is right",
        ),
        Metric(column="ssim", title="structural similarity", share=False, without=_NOTHING_SEEN),
        Metric(column="psnr", title="peak signal-to-noise ratio, dB", share=False, without=_NOTHING_SEEN),
        Metric(column="forward_calls", title="images put through the model", share=False),
        Metric(column="gradient_calls", title="images whose gradient was taken", share=False),
        Metric(column="seconds", title="seconds", share=False),
    )
}
"""What a robustness table may show, by name."""

ROBUST_ACCURACY = METRICS["robust_accuracy"]
TARGET_MISSED = Metric(
    column="target_missed", title="share right and not driven to the target", ends="target_missed"
)
"""What stands in place of robust accuracy where an attack is targeted."""

WITH_TRANSFER_LEFT = Metric(
    column="robust_with_transfer", title="right and broken by no image from anywhere", ends="with_transfer"
)
"""Of worst cases: where images that were made against other victims count too."""
