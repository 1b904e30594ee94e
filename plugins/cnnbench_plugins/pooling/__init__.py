"""Built-in techniques of slot ``pooling``."""
