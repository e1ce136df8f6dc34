"""Tasks with exact verifiers, learned by search and expert iteration: document 001's loop over document 001's tasks."""
