"""Built-in techniques of slot ``optimizer``."""
