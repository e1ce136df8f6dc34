"""Trading: markets, baselines, walk-forward evaluation, and the agents that learn to trade."""
