"""Built-in techniques of slot ``runtime``."""
