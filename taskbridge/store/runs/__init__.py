"""Runs: many files of one operation, each submitted, waited for and downloaded once, however often the run is stopped.

A run is a row of its own; each of its files is a stored submission, and its task a watch, as of any other caller.
"""
