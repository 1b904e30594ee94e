"""Energy meters: joules by component, each with how it was obtained."""
