"""Puzzles solved in one go: small recursive networks under deep supervision, against a plain transformer."""
