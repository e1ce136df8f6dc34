"""Tree search on arrays, for every kind of game: see `search.py`."""
