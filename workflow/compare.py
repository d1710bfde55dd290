"""`python workflow/compare.py results/PROFILE`: how many verdicts of a profile equal the committed ones.

Prints nothing where notebook 00 saved no comparison, as of a profile without committed records.
"""

import csv
import sys
from pathlib import Path


def compared(rows: list[dict[str, str]]) -> list[str]:
    """Lines for people from the rows of tables/yours_vs_ours.csv."""
    differ = [row for row in rows if row["same"] != "True"]
    lines = [f"verdicts  {len(rows) - len(differ)} of {len(rows)} equal the committed ones"]
    return lines + [f"          {row['id']}: yours {row['yours']}, committed {row['committed']}" for row in differ]


if __name__ == "__main__":
    path = Path(sys.argv[1], "tables", "yours_vs_ours.csv")
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            print(*compared(list(csv.DictReader(file))), sep="\n")
