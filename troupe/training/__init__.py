"""The training wing: rollouts, credit, objectives, the gradient step, reports and the gate. Knows no world and no
engine."""
