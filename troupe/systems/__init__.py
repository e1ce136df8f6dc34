"""Doors: each system wires worlds, engines and training together, and nothing else."""
