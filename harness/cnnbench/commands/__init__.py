"""The commands, one module each: what it asks for on the command line, and its answer.

A module has ``add(command)``, which the parser calls once. Heavy imports wait in the functions that answer.
"""
