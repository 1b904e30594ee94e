"""Built-in techniques of slot ``activation``."""
