"""Self-play (document 001): search makes the games, a network learns from them, and a better one takes its place."""
