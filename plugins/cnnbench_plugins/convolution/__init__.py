"""Built-in techniques of slot ``convolution``."""
