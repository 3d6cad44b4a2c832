"""Images and their transforms on a polar grid, as CryoLike reads them: one of the transforms of the pipeline."""
