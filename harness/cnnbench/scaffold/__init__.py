"""What ``cnnbench new`` writes: a plugin for any slot, as a package or as one file, from templates that are code."""
