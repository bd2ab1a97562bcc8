"""Recordings that exist already, through the door by which a telephone sends.

Each importer maps what a source says to what a telephone would send; ``door`` commits it.
"""
