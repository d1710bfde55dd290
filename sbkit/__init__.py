"""sbkit: train, ablate, analyse and run signed-binary networks on CPUs. Importing it imports nothing heavy."""

__version__ = "0.1.0"
