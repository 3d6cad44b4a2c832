"""Where the tasks of a plan run: in this process on its devices; others, such as a cluster, have the same face."""
