"""The jobs: each plans, checks, runs and reports."""
