"""`python workflow/options.py PROFILE RUN`: a training run of experiments.toml, as options of `-m sbkit.training`.

A notebook trains in one process. In several, `torchrun … -m sbkit.training $(python workflow/options.py imagenet
signed_binary-s0)` leaves the same files in their place; after `make reproduce RULE=datasets`, `make reproduce` takes
them for its own.
"""

import sys

from sbkit.notebook import NOTEBOOKS, expand


def options(profile: str, name: str) -> list[str]:
    """Raises ValueError naming the runs there are for one that is not."""
    runs = {run["name"]: run["parameters"] for run in expand(profile) if run["notebook"] == NOTEBOOKS["train"]}
    if name not in runs:
        raise ValueError(f"run = {name!r}; allowed in profile {profile}: {', '.join(runs)}")
    words = [f"--folder=results/{profile}"]
    for key, value in runs[name].items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif key != "profile":
            words.append(f"--{flag}={value}")
    return words


if __name__ == "__main__":
    try:
        print(*options(*sys.argv[1:]), sep="\n")
    except (TypeError, ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
