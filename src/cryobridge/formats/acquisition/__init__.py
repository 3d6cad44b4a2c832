"""What the programs that acquire movies write about them: in the names of files, and in files beside the movies."""
