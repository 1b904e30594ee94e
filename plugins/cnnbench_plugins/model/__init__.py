"""Built-in techniques of slot ``model``."""
