"""The page of a profile, the list of its files for machines, and the gallery of the committed results.

items    what lies in a profile's folder: figures, tables, records and where they come from
html     results/<profile>/index.html, one file that a browser opens offline
crate    results/<profile>/ro-crate-metadata.json, an RO-Crate of the profile's files
gallery  results/reference/README.md, which GitHub renders, and the tables in README.md and docs/
"""
