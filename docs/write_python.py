"""Writes docs/python.md, what `import robustsweep` offers, from its docstrings.

python docs/write_python.py
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import robustsweep

PAGE = Path(__file__).with_name("python.md")

HEAD = """\
# How do I use it from Python?

```python
import robustsweep

robustsweep.run("digits")  # a grid's name, file, dict or Grid; the same call resumes it

sweep = robustsweep.open("outputs/digits")  # or several, or a glob; in a notebook: the robustness table
sweep.cells.df()  # pandas; .arrow() and .pl() too
sweep.sql("SELECT model, epsilon, robust_accuracy FROM worst_case ORDER BY ALL").arrow()
print(sweep.table(attack="fgsm", digits=2).text("latex"))
sweep.plot.curves(attack="fgsm").savefig("curves.pdf")  # figures: docs/figures.md
```

A relation such as `sweep.cells` is computed when its rows are taken. `df()` needs pandas and `pl()` Polars
(the extras `pandas` and `polars`). What the columns mean:
[What does each column mean?](columns.md) Figures: [What can I draw?](figures.md) Every error that you can
mend is a `robustsweep.UserError`.

A notebook to begin with: [quickstart.ipynb](quickstart.ipynb). One page to send: `sweep.report("mine.html")`
([report](report.md)).

Adversarial images that a cell has kept (`keep:` in a grid), with their clean ones:

```python
cell = sweep.cells.df().query("attack == 'fgsm' and epsilon > 0.1").iloc[0]
images = sweep.images(cell, broken=True, n=8)
images.adversarial - images.clean  # (N, H, W, C); labels, adv_labels, adv_confidences, … beside them
```

<!-- What follows is written by `python docs/write_python.py` from docstrings. -->
"""


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(f"\n{part}" for name in robustsweep.__all__ for part in _described(name))


def _described(name: str) -> Iterator[str]:
    thing = getattr(robustsweep, name)
    if name == "Grid":
        yield f"## {name}\n\n{_text(thing)} Made by `load_grid`.\n"
    elif inspect.isfunction(thing):
        yield f"## {name}\n\n```python\n{_signature(f'robustsweep.{name}', thing)}\n```\n\n{_text(thing)}\n"
    elif inspect.isclass(thing):
        yield f"## {name}\n\n{_text(thing)}\n{''.join(_members(thing))}"


def _members(kind: type) -> Iterator[str]:
    if issubclass(kind, BaseException):
        return
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"\n- `.{name}`: {_text(member.fget, indent=2)}"
        elif inspect.isfunction(member):
            yield f"\n- `.{_signature(name, member, whole=False)}`: {_text(member, indent=2)}"
    if dataclasses.is_dataclass(kind):
        source = inspect.getsource(kind)
        for field in dataclasses.fields(kind):
            (line,) = (line for line in source.splitlines() if line.startswith(f"    {field.name}:"))
            kind_text, _, meaning = line.partition(":")[2].partition("#")
            yield f"\n- `.{field.name}`: `{kind_text.strip()}`, {meaning.strip()}"
    yield "\n"


def _signature(name: str, function: Any, *, whole: bool = True) -> str:
    found = inspect.signature(function)
    kept = [one for one in found.parameters.values() if one.name != "self"]
    if not whole:
        kept = [one.replace(annotation=inspect.Parameter.empty) for one in kept]
        return f"{name}{found.replace(parameters=kept, return_annotation=inspect.Signature.empty)}"
    text = str(found.replace(parameters=kept)).replace("'", "")
    if len(name) + len(text) <= 100:
        return f"{name}{text}"
    inside, _, after = text[1:].rpartition(") -> ")
    parts, depth, start = [], 0, 0
    for i, character in enumerate(inside):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append(inside[start:i].strip())
            start = i + 1
    lines = "".join(f"    {part},\n" for part in [*parts, inside[start:].strip()])
    return f"{name}(\n{lines}) -> {after}"


def _text(thing: Any, *, indent: int = 0) -> str:
    """A docstring, its paragraphs filled."""
    paragraphs = inspect.cleandoc(thing.__doc__ or "").split("\n\n")
    filled = (
        textwrap.fill(" ".join(paragraph.split()), 118 - indent, break_on_hyphens=False)
        for paragraph in paragraphs
    )
    return textwrap.indent("\n\n".join(filled), " " * indent).strip()


if __name__ == "__main__":
    PAGE.write_text(page())
