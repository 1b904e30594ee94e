"""Built-in techniques of slot ``tracker``."""
