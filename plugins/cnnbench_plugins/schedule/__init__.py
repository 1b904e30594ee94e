"""Built-in techniques of slot ``schedule``."""
