"""Built-in scorer plugins: one file each, with its citation; `SCORER` names the class."""
