"""Tables and their drawings: one file for each reader notebook, of its stem, on a shared style and layout. Torch-free.

A file holds the tables that its notebook shows and the functions that draw them, `fig_<stem>(table) -> Figure`. It
asks `sbkit.evidence` for groups, pairs and intervals, and knows no other file of this folder but style and layout, so
that an edit redraws one notebook.
"""
