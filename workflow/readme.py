"""`python workflow/readme.py`: put the tables that README.md shows in again, from the files that its marks name.

A mark is `<!-- table: results/…/x.md -->`; what stands between it and `<!-- end of table -->` is that file.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with every marked table as its file holds it now."""
    return _BLOCK.sub(lambda mark: f"{mark[1]}{(ROOT / mark[2]).read_text(encoding='utf-8').strip()}\n{mark[3]}", text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
