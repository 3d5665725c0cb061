"""What stands behind the API: an extractive baseline, recorded answers, replayed systems. No gold answers."""
