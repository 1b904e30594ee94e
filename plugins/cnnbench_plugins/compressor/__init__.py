"""Built-in techniques of slot ``compressor``."""
