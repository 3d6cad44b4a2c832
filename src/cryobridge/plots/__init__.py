"""Pictures: panels laid out on a page, and sheets of images."""
