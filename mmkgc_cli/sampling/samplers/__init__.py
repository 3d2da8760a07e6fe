"""Built-in sampler plugins: one file each, with its citation; `SAMPLER` names the class."""
