"""Built-in techniques of slot ``augmentation``."""
