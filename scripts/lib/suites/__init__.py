"""Test suites of others, run below an entry and in a plain directory of the same file system."""
