"""Built-in techniques of slot ``strategy``."""
