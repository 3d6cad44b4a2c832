"""The command line: thin commands over the job rooms; the only room that knows Rich."""
