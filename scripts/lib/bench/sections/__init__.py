"""The sections of the bench. Each module here is one: its first line of documentation says what it measures, and its
function `run(bench)` measures it and adds rows to `bench.table`. A new file is a new section."""
