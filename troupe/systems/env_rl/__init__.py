"""PPO on any Gymnasium environment, and on anything with the face of one."""
