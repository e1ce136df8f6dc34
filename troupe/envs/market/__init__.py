"""Markets: bars, simulated ones, an exact ledger, risk rules, and the batched core that trades them."""
