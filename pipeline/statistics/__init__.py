"""Paired statistics of two conditions: what each number in `significance.json` means, one idea a module.

The unit of inference is the item, never the sample. Nothing here reads configuration, writes files or
draws random numbers it was not handed a generator for.
"""
