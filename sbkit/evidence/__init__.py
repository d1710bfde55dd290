"""From records to judgements: groups of runs, intervals, benchmarks, claims and questions. Torch-free.

stats       means, intervals, and which side of a value they lie on
runs        training runs grouped by configuration, named by design, paired by seed
benchmarks  timings by way, and the one rule that finds a benchmark
codes       the integer codes that training left: repetition and operations
toy         the paper's toy example
paper       the paper's numbers, each once
gather      all of a profile, in one value
changed_images  accuracy on corrupted and attacked images
tradeoff    cost against density, and its optima
measures    functions from records to one number with its interval, which claims and questions name
claims      the paper's claims and their verdicts, its contradictions, and its figures and tables
questions   the reviewers' questions and the numbers behind each answer
"""
