"""Built-in techniques of slot ``initializer``."""
