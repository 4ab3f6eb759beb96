"""How hours and money are printed: what a plan will take, and what runs have used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from orchestrator.plan.cost import Cost
from orchestrator.plan.units import Plan


def hours(number: float, device: str) -> str:
    """ "1.25 CPU-hours on AMD EPYC" of a device "AMD EPYC (CPU)"; little in minutes or seconds."""
    name, _, kind = device.removesuffix(")").rpartition(" (")
    if number < 0.1:
        amount = (
            f"{3600 * number:.2g} {kind}-seconds" if number < 1 / 60 else f"{60 * number:.1f} {kind}-minutes"
        )
    else:
        amount = f"{number:,.{2 if number < 10 else 0}f} {kind}-hours"
    return f"{amount} on {name}"


def money(amount: float) -> str:
    """A sum in whatever money a price is given in."""
    return "less than 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"


def costs(console: Console, plan: Plan, found: Sequence[Cost], price: float | None) -> None:
    """What a plan will take on each device that something like it was timed on."""
    for line in cost_lines(plan, found, price):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def cost_lines(plan: Plan, found: Sequence[Cost], price: float | None) -> Iterator[str]:
    """A device a line, with what has no basis there; where nothing is known, that."""
    if not plan.unit_count:
        return
    if not found:
        yield (
            "hours: unknown, as nothing like it has been timed here: run a part of it first (--only, --set "
            "examples=50), or name other sweeps with --timings"
        )
    for cost in found:
        known = cost.exact + cost.alike
        bound = "at least" if cost.unknown or cost.unknown_trainings else "about"
        text = f"hours: {bound} {hours(cost.hours, cost.device)}"
        if price is not None:
            text += f", {money(cost.hours * price)} at {price:g} an hour"
        parts = [f"{known:,} of {known + cost.unknown:,} cells by earlier ones"]
        if cost.alike:
            parts.append(f"{cost.alike:,} of them by victims of the same network and data")
        if cost.rough:
            parts.append(f"{cost.rough:,} roughly, by units of another size: the larger, the less an example")
        if cost.unknown:
            parts.append(f"{cost.unknown:,} cells unknown")
        if cost.unknown_trainings:
            many = "s" if cost.unknown_trainings > 1 else ""
            parts.append(f"{cost.unknown_trainings:,} training{many} unknown")
        yield f"{text} ({', '.join(parts)})"


def used(hours_by_device: Mapping[str, float], price: float | None) -> str:
    """What workers were held for, ""  where nothing is known: "0.21 CPU-hours on AMD EPYC"."""
    text = " and ".join(hours(number, device) for device, number in hours_by_device.items())
    if text and price is not None:
        text += f", {money(sum(hours_by_device.values()) * price)} at {price:g} an hour"
    return text
