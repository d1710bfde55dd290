"""From evidence to one number with its interval: the measures that claims.toml and questions.toml name.

A measure is a function of `Evidence` and of what it is asked about, which a TOML file says by selectors:

group      training runs: { design = "signed_binary", delta_factor = 0.2 }
way        a contender of a benchmark: { algorithm = "table", scheme = "binary", encoding = "signed" }
contender  a way, or { best = "fp32 library" }: for each layer the fastest library in full precision
form       how codes become operations: { algorithm = "dataflow", skip_zeros = false }

To add a measure, write a function with `@measure` in one of the modules below.

trained   accuracy, density and robustness of training runs
repeated  repetition and operations of the codes that training left
timed     speed, operations and bytes of benchmarks
modelled  the accelerator model
reckoned  what needs no record: combinatorics, the toy example, the paper's own numbers
"""

from sbkit.evidence.measures import modelled, reckoned, repeated, timed, trained
from sbkit.evidence.measures.registry import MEASURES, Measurer, prepared

__all__ = ["MEASURES", "Measurer", "modelled", "prepared", "reckoned", "repeated", "timed", "trained"]
