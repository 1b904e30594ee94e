"""Built-in techniques of slot ``regularizer``."""
