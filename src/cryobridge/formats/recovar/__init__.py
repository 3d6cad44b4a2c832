"""RECOVAR: pipeline results, analyses and densities, in every layout that it wrote."""
