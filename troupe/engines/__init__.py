"""The engines wing: who answers a prompt. `local` generates in process, `scripted` speaks from a function."""
