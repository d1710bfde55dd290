"""`python -m sbkit.data NAME` finds, fetches and verifies a data set, and prints what it found."""

from __future__ import annotations

import argparse
import logging
import sys

from sbkit.data import SOURCES, load


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sbkit.data", description="Find, fetch and verify a data set.")
    parser.add_argument("name", help=", ".join(SOURCES))
    parser.add_argument("--root", help="folder that keeps the files (default: the repository's data folder)")
    parser.add_argument("--image-size", type=int, default=0, help="pixels, 0 native: an image folder is decoded in it")
    parser.add_argument("--margin", action="store_true", help="8/7 of that, as augment = resized_crop needs")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        data = load(options.name, root=options.root, image_size=options.image_size, margin=options.margin)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{data.label}: {len(data.classes)} classes, mean {data.mean}, standard deviation {data.std}")
    for key, digest in data.sha256.items():
        print(f"  {key:8s}{tuple(getattr(data, key).shape)!s:24s} sha256 {digest}")


if __name__ == "__main__":
    main()
