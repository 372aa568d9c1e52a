"""Decisions that need few reference calculations: screening of candidates, and campaigns whose reference is a queue."""
