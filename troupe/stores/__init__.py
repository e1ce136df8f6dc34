"""What outlives a process: episodes, checkpoints, registered models and tracked metrics.

Everything here survives `kill -9` at any instant. Files that grow are append-only JSON lines whose torn last line is
set aside on open (`jsonl`); folders appear whole or not at all, their manifest written last (`atomic`, `manifest`).
What is read back is safetensors and JSON, so reading runs no code.
"""
