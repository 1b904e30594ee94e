"""Runs a plan: schedules its stages, keeps their results, and survives whatever they do."""
