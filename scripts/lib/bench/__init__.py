"""What scripts/bench is made of: the caches it generates, mounts, the table of results, and a file for each section."""
