"""The commented grid that `robustsweep init` writes."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError

TEMPLATE = """\
# A robustsweep grid: every model × dataset × attack × epsilon below is one cell of the robustness table.
#   robustsweep plan {file}     what it would run
#   robustsweep run {file}      run it, or resume it
#   robustsweep table outputs/{name}

name: {name}                      # results go to outputs/{name} unless --output says otherwise

models:                           # robustsweep list models
  - small_cnn                     # a registered name…
  - {{name: wide_cnn, width: 48}}   # …with options; or {{name: mine, factory: "my_pkg.nets:build"}}

datasets:                         # robustsweep list datasets
  - digits                        # needs no download

attacks:                          # robustsweep list attacks
  - fgsm                          # under its default norm, linf
  - {{name: bim, steps: 20}}

# On the pixel range below, by norm and, where it matters, by dataset: {{linf: [...], l2: {{digits: [...]}}}}.
# A bare list means linf. Fractions are exact: 8/255.
epsilons: [0, 0.05, 0.1, 0.2, 0.3]
pixel_range: [0, 1]               # the scale they are written in; [-1, 1] and [0, 255] work too

train: {{epochs: 30}}               # how victims are trained; a model or dataset may carry its own train:
examples: 500                     # test examples per cell, capped at the size of the test split
slice: 250                        # examples per unit of work: how finely a cell is spread over workers
keep: 8                           # adversarial images stored per cell
seeds: [0]                        # training seeds; several give mean ± SD
attack_seed: 0                    # for attacks with randomness
# transfer: true                  # try the images made against each victim on all others too

# exclude:                        # cells to leave out
#   - {{model: wide_cnn, attack: bim, epsilon: 0.3}}
"""


def write_grid(path: str) -> None:
    """Write the template; UserError when the file exists or cannot be written."""
    target = Path(path)
    name = target.stem if target.stem != "victims" else "grid"
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(TEMPLATE.format(name=name, file=target.name))
    except FileExistsError:
        raise UserError(f"{path} is there already; init never overwrites: name another file") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
