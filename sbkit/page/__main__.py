"""`python -m sbkit.page --profile quick` writes a profile's page, its RO-Crate and its executed notebooks as HTML.

`--verdicts quick` prints how many verdicts of the profile equal the committed ones.
`--gallery` fills the gallery, README.md and docs/ from the committed results instead.
"""

import argparse
import sys

from sbkit.notebook import Run, find_root
from sbkit.page import crate, gallery, html, verdicts
from sbkit.records import write_atomic


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sbkit.page", description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--profile", help="a profile of experiments.toml, or reference/<one of them>")
    what.add_argument(
        "--verdicts", metavar="PROFILE", help="print how a profile's verdicts compare with the committed ones"
    )
    what.add_argument("--gallery", action="store_true", help="fill results/reference/README.md, README.md and docs/")
    chosen = parser.parse_args(arguments)
    if chosen.gallery:
        gallery.write(find_root())
        return
    run = Run(chosen.profile or chosen.verdicts, name="", save=True, configs=(), root=find_root())
    if chosen.verdicts:
        for line in verdicts.as_lines(verdicts.compared(run)):
            print(line)
        return
    html.write_notebooks(run.folder)
    write_atomic(run.folder / "index.html", html.page(run).encode())
    write_atomic(run.folder / "ro-crate-metadata.json", f"{crate.crate(run)}\n".encode())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
