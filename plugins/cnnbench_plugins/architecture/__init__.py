"""Built-in techniques of slot ``architecture``."""
