"""Built-in techniques of slot ``norm``."""
