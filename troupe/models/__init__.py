"""Networks: language models with their adapters and chat formats, what they say of recorded actions, value models."""
