"""Built-in techniques of slot ``input``."""
