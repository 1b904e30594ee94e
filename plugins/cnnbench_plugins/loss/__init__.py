"""Built-in techniques of slot ``loss``."""
