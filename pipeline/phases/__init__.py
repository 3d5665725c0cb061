"""The steps of a run, one module each, in the order the data flows: prepare to archive."""
