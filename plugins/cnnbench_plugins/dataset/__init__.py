"""Built-in techniques of slot ``dataset``."""
