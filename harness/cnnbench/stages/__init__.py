"""What a trial is made of: train, compress, evaluate, profile, latency, energy."""
